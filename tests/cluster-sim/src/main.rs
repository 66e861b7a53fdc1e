//! probe
mod net;
mod node;
mod random;
use std::os::unix::fs::PermissionsExt;
fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).without_time().init();
    let seed: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    mad_turmoil::rand::set_rng(<rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed));
    let root = std::path::PathBuf::from(format!("/dev/shm/cs-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let s = root.join("secret");
    std::fs::write(&s, [b'x'; 32]).unwrap();
    std::fs::set_permissions(&s, std::fs::Permissions::from_mode(0o600)).unwrap();
    let net = net::Net::new(seed);
    let mut nodes: Vec<_> = (1..=3).map(|n| node::Node::new(n, 3, &root, &net).unwrap()).collect();
    for n in &mut nodes {
        n.start().unwrap();
    }
    for ms in 0..20_000 {
        net.step();
        for n in &mut nodes {
            let b = n.state;
            let _ = n.tick().unwrap();
            if n.state != b {
                println!("{ms} {} {:?} {}", n.number, n.state, n.why);
                if let Some(h) = n.handle() {
                    println!("{} {} {:?}", h.cluster_id(), h.node().0, h.status());
                }
            }
        }
    }
    for n in &nodes {
        if let Some(h) = n.handle() {
            println!("{:?} {:?}", h.status(), h.seen());
        }
    }
    let _ = std::fs::remove_dir_all(&root);
}
