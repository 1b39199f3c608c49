//! The static `mayfly-executor` that goes on top of an image: found, or built from the checkout.

use std::path::{Path, PathBuf};

use super::{BuildError, BuildOptions, Progress, checkout::Checkout, process, toolchain};

const NAME: &str = "mayfly-executor";

/// The executor for the image of the tool in `dir`.
pub(super) async fn find_or_build(dir: &Path, options: &BuildOptions, progress: Progress<'_>) -> Result<PathBuf, BuildError> {
    let named = options.executor.clone().or_else(from_environment);
    if let Some(chosen) = named {
        return require_static(&chosen).map(|()| chosen);
    }
    if let Some(found) = beside() {
        return Ok(found);
    }
    let checkout = Checkout::around(dir).ok_or_else(|| {
        BuildError::NoExecutor(format!("give one with --executor PATH or MAYFLY_EXECUTOR, put `{NAME}` beside `mayfly`, or run this in a checkout of Mayfly's source"))
    })?;
    build(&checkout, progress).await
}

/// The executor that is there without building one: named by MAYFLY_EXECUTOR, or beside this program.
pub fn at_hand() -> Option<PathBuf> {
    from_environment().filter(|named| require_static(named).is_ok()).or_else(beside)
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os("MAYFLY_EXECUTOR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn beside() -> Option<PathBuf> {
    let found = std::env::current_exe().ok()?.with_file_name(NAME);
    // In a checkout, cargo puts a dynamic one there too: passed over, not an error.
    require_static(&found).is_ok().then_some(found)
}

async fn build(checkout: &Checkout, progress: Progress<'_>) -> Result<PathBuf, BuildError> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    toolchain::ensure_target(checkout.root(), &target, progress).await?;
    progress("building the executor that goes on top of images");
    let target_dir = checkout.target_dir();
    let folder = target_dir.display().to_string();
    let arguments = [
        "build",
        "-p",
        NAME,
        "--bin",
        NAME,
        "--no-default-features",
        "--profile",
        "executor",
        "--target",
        &target,
        "--target-dir",
        &folder,
    ];
    process::run("cargo", &arguments, checkout.root(), progress).await?;
    let made = target_dir.join(&target).join("executor").join(NAME);
    require_static(&made).map(|()| made)
}

/// Refuses what could not start in an image without a C library.
fn require_static(path: &Path) -> Result<(), BuildError> {
    let bytes = std::fs::read(path).map_err(|error| BuildError::NoExecutor(format!("{}: {error}", path.display())))?;
    match linkage(&bytes) {
        Some(Linkage::Static) => Ok(()),
        Some(Linkage::Dynamic) => Err(BuildError::NoExecutor(format!(
            "{} needs a dynamic loader, which an image may lack; build it for a musl target (`cargo build -p {NAME} --no-default-features --profile executor --target {}-unknown-linux-musl`)",
            path.display(),
            std::env::consts::ARCH
        ))),
        None => Err(BuildError::NoExecutor(format!("{} is no 64-bit ELF program", path.display()))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linkage {
    Static,
    Dynamic,
}

/// Whether a little-endian ELF64 program asks for an interpreter: a program header of type 3, `PT_INTERP` (`elf(5)`).
fn linkage(bytes: &[u8]) -> Option<Linkage> {
    const PT_INTERP: u32 = 3;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(0x20, 8)?).ok()?;
    let (entry_size, entries) = (usize::try_from(number(0x36, 2)?).ok()?, usize::try_from(number(0x38, 2)?).ok()?);
    for entry in 0..entries {
        let at = table.checked_add(entry.checked_mul(entry_size)?)?;
        if number(at, 4)? == u64::from(PT_INTERP) {
            return Some(Linkage::Dynamic);
        }
    }
    Some(Linkage::Static)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of the type given.
    fn elf(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 0x40 + 0x38];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x20] = 0x40;
        bytes[0x36] = 0x38;
        bytes[0x38] = 1;
        bytes[0x40..0x44].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_that_asks_for_a_loader_is_dynamic() {
        assert_eq!(linkage(&elf(1)), Some(Linkage::Static));
        assert_eq!(linkage(&elf(3)), Some(Linkage::Dynamic));
        assert_eq!(linkage(b"#!/bin/sh"), None);
        assert_eq!(linkage(&elf(1)[..0x30]), None, "cut short");
        let mut endless = elf(1);
        endless[0x20..0x28].fill(0xff);
        assert_eq!(linkage(&endless), None);
    }

    #[tokio::test]
    async fn a_chosen_executor_that_is_none_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let options = |name: &str| BuildOptions { executor: Some(folder.path().join(name)), ..BuildOptions::default() };
        std::fs::write(folder.path().join("dynamic"), elf(3)).unwrap();
        std::fs::write(folder.path().join("script"), "#!/bin/sh").unwrap();
        for (name, message) in [("none", "none"), ("dynamic", "musl"), ("script", "ELF")] {
            let error = find_or_build(folder.path(), &options(name), &|_| {}).await.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        std::fs::write(folder.path().join("static"), elf(1)).unwrap();
        assert!(find_or_build(folder.path(), &options("static"), &|_| {}).await.is_ok());
    }
}
