//! Any method with any fields: on the first octet's channel (0 to 2) of an open connection.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/client/mod.rs"]
mod client;

fuzz_target!(|octets: &[u8]| {
    let Some((&[channel, class, method], fields)) = octets.split_first_chunk() else { return };
    let now = Instant::now();
    let mut connection = client::running(now, client::settings(), &[], &client::tune_ok(20, 131_072, 0));
    let mut out = Vec::new();
    connection.receive(now, &client::method(1, 20, 10, b"\0"), &mut out);
    connection.receive(now, &client::method((channel % 3).into(), class.into(), method.into(), fields), &mut out);
});
