//! Compiles the protobuf files, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        protox::compile(["meta.proto", "admin.proto", "cluster.proto", "gossip.proto", "node.proto"], ["proto"])?;
    // Who connects, and how, is the user's: no transport in the generated code.
    tonic_prost_build::configure()
        .build_transport(false)
        .boxed(".broker.meta.Command.kind.import")
        .compile_fds(files)?;
    Ok(())
}
