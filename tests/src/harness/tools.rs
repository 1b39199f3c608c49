//! Tools made of a few lines of `.wat`, for promises about the gateway rather than about a tool.

use super::Kind;

/// A `tool.yaml` for a module `tool.wasm`, with `extra` lines at the end and any argument `text` up to 4 KiB.
pub fn yaml(name: &str, extra: &str) -> String {
    format!(
        "format: 1\nname: {name}\nversion: 1.0.0\ndescription: A tool of the tests.\ntier: free\n\
         justification: It can do nothing.\nreview_by: 2099-01-01\naction: get\nresource: text\n\
         input_schema:\n  type: object\n  properties:\n    text: {{ type: string, maxLength: 4096 }}\n\
         executor:\n  backend: wasm\n  module: tool.wasm\n  timeout: 2s\n  memory: 16Mi\n  output_limit: 64Ki\n{extra}"
    )
}

/// A `tool.yaml` for an image of `name`, with what `executor` says beside its memory and output limit.
pub fn container(kind: Kind, name: &str, executor: &str) -> String {
    let backend = kind.name();
    yaml(name, &format!("  {executor}\n"))
        .replace("backend: wasm", &format!("backend: {backend}"))
        .replace("module: tool.wasm", &format!("image: mayfly-test/{name}:1"))
        .replace("  timeout: 2s\n", "")
        .replace("memory: 16Mi", "memory: 64Mi")
}

/// Writes its standard input to its standard output.
pub const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
      (if (i32.load (i32.const 16)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 16)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
        (br $more))))))"#;

/// Never ends.
pub const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;
