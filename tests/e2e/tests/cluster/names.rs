//! A name server for nodes on hosts of their own: it knows one name, whose addresses change, and may differ for each host that asks.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use harness::Hosts;

/// The name that it knows.
pub const NAME: &str = "broker.example.org";

/// Of a message's head.
const HEAD_BYTES: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// An answer, recursion wanted and to be had.
const FLAGS: [u8; 2] = [0x81, 0x80];
/// There is no such name.
const NO_SUCH_NAME: u8 = 3;

/// See the module's page. It serves until the test's process ends.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    told: Vec<Ipv4Addr>,
    told_to: HashMap<Ipv4Addr, Vec<Ipv4Addr>>,
    asked: usize,
}

impl Names {
    /// The nodes that are started from now on ask it. It knows no addresses yet.
    pub fn serve(network: &Hosts) -> Names {
        let socket = UdpSocket::bind((network.own_address(), 53)).unwrap();
        network.ask_for_names_at(network.own_address()).unwrap();
        let names = Names::default();
        let serving = names.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((octets, from)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = serving.answer(&buffer[..octets], from) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        names
    }

    /// Everybody is told these addresses from now on. None: there is no such name.
    pub fn tell(&self, addresses: &[Ipv4Addr]) {
        let mut state = self.0.lock().unwrap();
        state.told_to.clear();
        state.told = addresses.to_vec();
    }

    /// One host is told these.
    pub fn tell_one(&self, host: Ipv4Addr, addresses: &[Ipv4Addr]) {
        self.0.lock().unwrap().told_to.insert(host, addresses.to_vec());
    }

    /// How often the name was asked for.
    pub fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    /// RFC 1035, section 4.
    fn answer(&self, question: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        let SocketAddr::V4(from) = from else { return None };
        let (id, asked) = (question.get(..2)?, question.get(HEAD_BYTES..)?);
        let name: Vec<u8> =
            NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        let kind = asked.strip_prefix(&name[..])?.strip_prefix(&[0])?;
        // The name, its end, type and class; what may come behind it is not answered.
        let asked = &asked[..name.len() + 5];
        let told = state.told_to.get(from.ip()).unwrap_or(&state.told);
        let addresses = if kind.starts_with(&TYPE_A) { told.clone() } else { Vec::new() };
        let code = if told.is_empty() { NO_SUCH_NAME } else { 0 };
        let mut answer = [id, &[FLAGS[0], FLAGS[1] | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0], asked].concat();
        state.asked += 1;
        // In another order each time, as name servers do.
        let turn = state.asked;
        for at in 0..addresses.len() {
            let address = addresses[(at + turn) % addresses.len()];
            // The name again, class IN, good for no time.
            answer.extend_from_slice(&[0xc0, HEAD_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        Some(answer)
    }
}
