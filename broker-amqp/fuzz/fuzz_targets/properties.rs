//! Any octets as property flags and properties: read, and `BCC` cut out.
#![no_main]

use broker_amqp::content;
use broker_core::message::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    for bit in 2..16 {
        let _ = content::property(octets, 1 << bit).map(content::parse_expiration);
    }
    let routes = content::extra_routes(octets).count();
    if content::check(octets).is_none() {
        return;
    }
    let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], octets].concat();
    let Some(message) = Message::new(b"\x01x\x01k", &header, b"m", false, &mut Vec::new()) else { return };
    if let Some(stripped) = content::without_bcc(&message) {
        assert!(content::check(stripped.properties()).is_some());
        assert!(content::extra_routes(stripped.properties()).count() <= routes);
    }
});
