//! What a waiting sandbox costs the gateway.

use std::time::Duration;

use mayfly_tests::bench::{Aim, Figure, Quantiles};
use mayfly_tests::harness::{Engine, Mayfly, Setup, tools, until};

use crate::ECHO;

const FEW: u32 = 1;
const MANY: u32 = 21;

/// Memory and file descriptors of the gateway, for each sandbox that waits.
pub(crate) async fn per_warm_sandbox(engine: &Engine) -> Vec<Figure> {
    let warm = |size: u32| format!("timeout: 20s\n  cpu: '0.045'\n  warm: {size}");
    let mayfly = Setup::new().container(engine, "bench_room", ECHO, &warm(FEW)).start();
    settled(&mayfly, FEW).await;
    let before = taken(&mayfly);
    std::fs::write(mayfly.dir().join("tools/bench_room/tool.yaml"), tools::container(engine.kind, "bench_room", &warm(MANY)))
        .unwrap();
    settled(&mayfly, MANY).await;
    let after = taken(&mayfly);
    let each = |after: f64, before: f64| Quantiles::single((after - before) / f64::from(MANY - FEW));
    let figure = |what: &str, unit, at: fn((f64, f64)) -> f64| {
        let all = Quantiles::single(at(after));
        let name = format!("{:?}: the gateway's {what} for each warm sandbox", engine.kind);
        let baseline = format!("all of it, with {MANY}");
        Figure::new(&name, unit, each(at(after), at(before)), (&baseline, all), Aim::None)
    };
    vec![figure("memory", "KiB", |taken| taken.0), figure("file descriptors", "fds", |taken| taken.1)]
}

async fn settled(mayfly: &Mayfly, size: u32) {
    until("the pool is full", Duration::from_secs(300), || {
        let pools = mayfly.pools();
        pools[0]["size"] == size && pools[0]["idle"] == size
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Resident KiB, and descriptors.
fn taken(mayfly: &Mayfly) -> (f64, f64) {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", mayfly.pid())).unwrap().count();
    (mayfly.resident() as f64 / 1024.0, fds as f64)
}
