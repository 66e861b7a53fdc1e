//! From the protocol header to `open-ok`.

use amq_protocol::protocol::{AMQPClass, connection};
use amq_protocol::types::{AMQPValue, FieldTable, LongString};

use crate::connection::{Client, Connection, Flow, Phase};
use crate::exception::{Exception, ReplyCode};
use crate::frame;
use crate::method::{self, Method};
use crate::output::{CloseReason, Output};
use crate::sasl;

/// What a client says first.
pub(super) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// What clients switch features on.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl Connection {
    /// The first eight octets.
    pub(super) fn take_protocol_header(&mut self, octets: &[u8], out: &mut Vec<Output>) -> Option<usize> {
        let header: &[u8; 8] = octets.first_chunk()?;
        let version = match header {
            PROTOCOL_HEADER | b"AMQP\x01\x01\0\x09" => Some((0, 9)),
            b"AMQP\x01\x01\x08\0" | b"AMQP\x01\x01\x09\x01" => Some((8, 0)),
            _ => None,
        };
        if let Some(version) = version {
            self.phase = Phase::Start;
            self.send_start(version);
            return Some(header.len());
        }
        self.send.append(|out| out.extend_from_slice(PROTOCOL_HEADER));
        self.drop_socket(CloseReason::BadHeader, out);
        Some(octets.len())
    }

    /// Says who this is. Clients of older versions are served like the others, but told of no capabilities, as RabbitMQ does.
    fn send_start(&mut self, (version_major, version_minor): (u8, u8)) {
        let settings = &self.settings;
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES.into_iter().filter(|_| version_major == 0) {
            capabilities.insert(method::short(name), AMQPValue::Boolean(true));
        }
        let mut properties = FieldTable::default();
        properties.insert(method::short("capabilities"), AMQPValue::FieldTable(capabilities));
        for (name, text) in [
            ("cluster_name", &settings.cluster_name),
            ("copyright", &settings.copyright),
            ("information", &settings.information),
            ("platform", &settings.platform),
            ("product", &settings.product),
            ("version", &settings.version),
        ] {
            properties.insert(method::short(name), AMQPValue::LongString(LongString::from(text.as_str())));
        }
        let start = connection::Start {
            version_major,
            version_minor,
            server_properties: properties,
            mechanisms: settings.mechanisms.join(" ").into(),
            locales: "en_US".into(),
        };
        method::write(&mut self.send, 0, &AMQPClass::Connection(connection::AMQPMethod::Start(start)));
    }

    pub(super) fn start_ok(&mut self, ok: &connection::StartOk, properties: &[u8], out: &mut Vec<Output>) -> Flow {
        let mechanism = ok.mechanism.as_str();
        if !self.settings.mechanisms.iter().any(|offered| offered == mechanism) {
            let what = if sasl::exists(mechanism) { "invalid" } else { "unknown" };
            let text = format!("{what} authentication mechanism '{mechanism}'");
            return self.raise_on_connection(Exception::new(ReplyCode::CommandInvalid, text).during(10, 11), out);
        }
        let Some(login) = sasl::parse(mechanism, ok.response.as_bytes()) else {
            let text = format!("{mechanism} response invalid");
            return self.raise_on_connection(Exception::new(ReplyCode::SyntaxError, text).during(10, 11), out);
        };
        let client = Client { mechanism: mechanism.into(), properties: properties.into(), ..Client::default() };
        self.client = Some(Box::new(client));
        self.phase = Phase::Login;
        out.push(Output::Login(Box::new(login)));
        Flow::Next
    }

    /// The login is right: what this node offers.
    pub(super) fn send_tune(&mut self) {
        let tune = connection::Tune {
            channel_max: self.settings.channel_max,
            frame_max: self.settings.frame_max,
            heartbeat: self.settings.heartbeat,
        };
        method::write(&mut self.send, 0, &AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
        self.phase = Phase::Tune;
        self.release();
    }

    pub(super) fn tune_ok(&mut self, ok: &connection::TuneOk, out: &mut Vec<Output>) -> Flow {
        let frame_max = negotiate("frame_max", frame::MIN_MAX_BYTES, ok.frame_max, self.settings.frame_max);
        let channel_max = negotiate("channel_max", 1, ok.channel_max.into(), self.settings.channel_max.into());
        if let Err(exception) = frame_max.and(channel_max) {
            return self.raise_on_connection(exception, out);
        }
        self.frame_max = match ok.frame_max {
            0 => frame::UNLIMITED_MAX_BYTES,
            limit => limit.min(frame::UNLIMITED_MAX_BYTES),
        };
        self.channel_max = ok.channel_max;
        self.heartbeat.start(self.now, ok.heartbeat);
        self.phase = Phase::Open;
        Flow::Next
    }

    pub(super) fn open(&mut self, open: &connection::Open, out: &mut Vec<Output>) -> Flow {
        let vhost: Box<str> = open.virtual_host.as_str().into();
        if let Some(client) = &mut self.client {
            client.vhost = Some(vhost.clone());
        }
        self.phase = Phase::Opening;
        out.push(Output::Open { vhost });
        Flow::Next
    }

    pub(super) fn open_ok(&mut self) {
        let ok = AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {}));
        method::write(&mut self.send, 0, &ok);
        self.phase = Phase::Running;
        self.deadline = None;
        self.release();
    }

    /// A method on channel 0.
    pub(super) fn connection_method(&mut self, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        use connection::AMQPMethod;
        let Method { class, method, fields, table, .. } = match self.parse_on_channel_0(payload) {
            Ok(method) => method,
            Err(exception) => return self.raise_on_connection(exception, out),
        };
        match (self.phase, fields) {
            (Phase::Start, AMQPClass::Connection(AMQPMethod::StartOk(ok))) => self.start_ok(&ok, table, out),
            (Phase::Tune, AMQPClass::Connection(AMQPMethod::TuneOk(ok))) => self.tune_ok(&ok, out),
            (Phase::Open, AMQPClass::Connection(AMQPMethod::Open(open))) => self.open(&open, out),
            (Phase::Running, AMQPClass::Connection(AMQPMethod::Close(_))) => {
                if self.must_wait() {
                    return Flow::Hold;
                }
                self.close_by_client(out);
                Flow::Next
            }
            (Phase::Running, AMQPClass::Connection(AMQPMethod::UpdateSecret(_))) => {
                method::write_empty(&mut self.send, 0, 10, 71);
                Flow::Next
            }
            (phase, _) => self.raise_on_connection(unexpected_method(phase, class, method), out),
        }
    }

    /// On channel 0 a method that belongs elsewhere is out of place before it is anything else.
    fn parse_on_channel_0<'a>(&self, payload: &'a [u8]) -> Result<Method<'a>, Exception> {
        let parsed = match method::ids(payload) {
            Some((60, 40 | 80 | 90 | 120)) => Err(Exception::unimplemented_method()),
            _ => method::parse(payload),
        };
        parsed.map_err(|exception| match (exception.code, method::ids(payload)) {
            (ReplyCode::CommandInvalid, Some((class, method))) => unexpected_method(self.phase, class, method),
            _ => exception,
        })
    }
}

fn unexpected_method(phase: Phase, class: u16, method: u16) -> Exception {
    let state = match phase {
        Phase::Header | Phase::Start | Phase::Refusing => "starting",
        Phase::Login => "securing",
        Phase::Tune => "tuning",
        Phase::Open | Phase::Opening => "opening",
        Phase::Running => "running",
        Phase::Closing | Phase::Closed => "closing",
    };
    let text = format!("unexpected method in connection state {state}");
    Exception::new(ReplyCode::ChannelError, text).during(class, method)
}

/// Each value may be lower than offered, not higher; 0 is higher than any limit.
fn negotiate(name: &str, min: u32, wanted: u32, offered: u32) -> Result<(), Exception> {
    let fail = |than: &str, which: &str, limit: u32| {
        let detail = if wanted == 0 && name == "channel_max" { " (no limit)" } else { "" };
        let text = format!("negotiated {name} = {wanted}{detail} is {than} than the {which} allowed value ({limit})");
        Err(Exception::new(ReplyCode::NotAllowed, text).during(10, 30))
    };
    if wanted != 0 && wanted < min {
        fail("lower", "minimum", min)
    } else if offered != 0 && (wanted == 0 || wanted > offered) {
        fail("higher", "maximum", offered)
    } else {
        Ok(())
    }
}
