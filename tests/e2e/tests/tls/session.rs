//! AMQP over any stream that blocks: just enough to publish and consume.

use std::io::{self, Read, Write};

use e2e::wire::{frame, long, short};

const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
const FRAME_MAX: usize = 131_072;
const START: [u16; 2] = [10, 10];
const TUNE: [u16; 2] = [10, 30];
const CLOSE: [u16; 2] = [10, 50];

/// An open connection with channel 1.
pub struct Session<S> {
    pub stream: S,
}

/// What `connection.start` says, or the text of the `connection.close` that answers the login.
pub struct Refused {
    pub mechanisms: String,
    pub text: String,
}

impl<S: Read + Write> Session<S> {
    /// Logs in; a login that is refused is not an error of the stream.
    pub fn open(stream: S, mechanism: &str, response: &str) -> io::Result<Result<Self, Refused>> {
        let mut session = Session { stream };
        session.stream.write_all(PROTOCOL_HEADER)?;
        let (method, fields) = session.method()?;
        assert_eq!(method, START);
        let mechanisms = mechanisms(&fields);
        let properties = b"\x0ccapabilitiesF\0\0\0\x1f\x1cauthentication_failure_closet\x01";
        let mut fields = long(properties);
        fields.extend(short(mechanism));
        fields.extend(long(response.as_bytes()));
        fields.extend(short("en_US"));
        session.send(0, 10, 11, &fields)?;
        let (method, fields) = session.method()?;
        if method == CLOSE {
            let text = String::from_utf8_lossy(&fields[3..3 + usize::from(fields[2])]).into_owned();
            assert_eq!(fields[..2], 403_u16.to_be_bytes());
            return Ok(Err(Refused { mechanisms, text }));
        }
        assert_eq!(method, TUNE);
        session.send(0, 10, 31, &[7, 255, 0, 2, 0, 0, 0, 0])?;
        session.call(0, 10, 40, &[short("/"), short(""), vec![0]].concat())?;
        session.call(1, 20, 10, &short(""))?;
        Ok(Ok(session))
    }

    pub fn guest(stream: S) -> io::Result<Self> {
        let opened = Self::open(stream, "PLAIN", "\0guest\0guest")?;
        Ok(opened.unwrap_or_else(|refused| panic!("{}", refused.text)))
    }

    pub fn declare(&mut self, queue: &str) -> io::Result<()> {
        self.call(1, 50, 10, &[vec![0, 0], short(queue), vec![0], long(b"")].concat()).map(drop)
    }

    pub fn consume(&mut self, queue: &str) -> io::Result<()> {
        // no-ack
        self.call(1, 60, 20, &[vec![0, 0], short(queue), short("c"), vec![2], long(b"")].concat()).map(drop)
    }

    pub fn publish(&mut self, queue: &str, body: &[u8]) -> io::Result<()> {
        let mut octets = frame(1, 1, &[&[0, 60, 0, 40, 0, 0, 0][..], &short(queue), &[0]].concat());
        let size = u64::try_from(body.len()).unwrap().to_be_bytes();
        octets.extend(frame(2, 1, &[&[0, 60, 0, 0][..], &size, &[0, 0]].concat()));
        for piece in body.chunks(FRAME_MAX - 8) {
            octets.extend(frame(3, 1, piece));
        }
        self.stream.write_all(&octets)
    }

    /// The body of the next delivery.
    pub fn delivery(&mut self) -> io::Result<Vec<u8>> {
        let (method, _) = self.method()?;
        assert_eq!(method, [60, 60]);
        let header = self.frame(2)?;
        let size = usize::try_from(u64::from_be_bytes(header[4..12].try_into().unwrap())).unwrap();
        let mut body = Vec::new();
        while body.len() < size {
            body.extend(self.frame(3)?);
        }
        Ok(body)
    }

    /// Says goodbye and waits for the answer.
    pub fn close(&mut self) -> io::Result<()> {
        self.call(0, 10, 50, &[0, 200, 0, 0, 0, 0, 0]).map(drop)
    }

    fn call(&mut self, channel: u16, class: u16, method: u16, fields: &[u8]) -> io::Result<Vec<u8>> {
        self.send(channel, class, method, fields)?;
        let (answer, fields) = self.method()?;
        assert_eq!(answer, [class, method + 1], "{}", String::from_utf8_lossy(&fields));
        Ok(fields)
    }

    fn send(&mut self, channel: u16, class: u16, method: u16, fields: &[u8]) -> io::Result<()> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), fields].concat();
        self.stream.write_all(&frame(1, channel, &payload))?;
        self.stream.flush()
    }

    fn method(&mut self) -> io::Result<([u16; 2], Vec<u8>)> {
        let payload = self.frame(1)?;
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        Ok(([number(0), number(2)], payload[4..].to_vec()))
    }

    fn frame(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[0], kind);
        let size = u32::from_be_bytes(*head.last_chunk().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        self.stream.read_exact(&mut payload)?;
        assert_eq!(payload.pop(), Some(0xce));
        Ok(payload)
    }
}

fn mechanisms(start: &[u8]) -> String {
    let table = 2 + 4 + u32::from_be_bytes(start[2..6].try_into().unwrap()) as usize;
    let size = u32::from_be_bytes(start[table..table + 4].try_into().unwrap()) as usize;
    String::from_utf8(start[table + 4..table + 4 + size].to_vec()).unwrap()
}
