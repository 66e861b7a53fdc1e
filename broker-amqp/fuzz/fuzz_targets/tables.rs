//! Any octets as a field table: what is judged well formed is read from end to end.
#![no_main]

use broker_amqp::table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let read: usize = table::fields(octets).map(|(name, value)| 1 + name.len() + value.len()).sum();
    for (_, value) in table::fields(octets) {
        let _ = table::type_name(value);
        if let Some(array) = table::content_of(value, b'A') {
            let _ = table::items(array).count();
        }
    }
    if table::is_well_formed(octets) {
        assert_eq!(read, octets.len());
    }
});
