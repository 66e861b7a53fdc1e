//! Octets on a link between nodes: whatever is understood can be said again, and is understood the same; nothing is held but what came.

use broker_amqp::frame::{self, END};
use broker_amqp::link::{CLASS, Link, Op};
use broker_core::message::Content;
use broker_core::queue::{Delivery, Publish};
use broker_core::store::QueueId;

const MESSAGE_MAX: u64 = 100_000;

/// The first octet says in what pieces the others come. With an odd one they are methods, headers and bodies in turn, each behind a length and a number, and
/// come in well-formed frames; else they are frames themselves.
pub fn live(octets: &[u8]) {
    let Some((&choice, octets)) = octets.split_first() else { return };
    let octets = if choice & 1 == 1 { framed(octets) } else { octets.to_vec() };
    let step = 1 + usize::from(choice) * 7;
    let (mut link, mut again) = (Link::new(MESSAGE_MAX), Link::new(MESSAGE_MAX));
    let mut words = Vec::new();
    let mut came = 0;
    for piece in octets.chunks(step) {
        came += piece.len();
        let understood = link.receive(piece, &mut |op| {
            say(&mut again, &op);
            words.push(shown(&op));
        });
        assert!(link.held_bytes() <= came);
        if understood.is_err() {
            break;
        }
    }
    let mut heard = Vec::new();
    Link::new(MESSAGE_MAX).receive(&drain(&mut again), &mut |op| heard.push(shown(&op))).unwrap();
    assert_eq!(heard, words);
}

fn framed(mut octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((&[kind, number, len], rest)) = octets.split_first_chunk() {
        let (payload, rest) = rest.split_at(usize::from(len).min(rest.len()));
        octets = rest;
        match kind % 4 {
            0 | 1 => frame::write(&mut out, frame::METHOD, 0, |out| {
                out.extend_from_slice(&CLASS.to_be_bytes());
                out.extend_from_slice(&[0, 10 + number % 32]);
                out.extend_from_slice(payload);
            }),
            2 => frame::write(&mut out, frame::HEADER, 0, |out| {
                out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]);
                out.extend_from_slice(payload);
            }),
            _ => frame::write(&mut out, frame::BODY, 0, |out| out.extend_from_slice(payload)),
        }
    }
    assert!(out.is_empty() || out.last() == Some(&END));
    out
}

fn say(link: &mut Link, op: &Op<'_>) {
    match op {
        Op::Publish { queues, publishes } => {
            let queues: Vec<QueueId> = queues.iter().collect();
            publishes.iter().for_each(|publish| link.publish(&queues, publish));
        }
        Op::Deliver { queue, deliveries } => deliveries.iter().for_each(|delivery| link.deliver(*queue, delivery)),
        Op::Got(got) => link.got(got),
        small => link.say(small),
    }
}

/// What a link has to write, which counts as written.
pub fn drain(link: &mut Link) -> Vec<u8> {
    let octets: Vec<u8> = link.send_buffer().as_io_slices(usize::MAX).iter().flat_map(|slice| slice.to_vec()).collect();
    link.send_buffer().consume(octets.len());
    octets
}

/// A message with all that is in it.
pub fn shown_content(content: &Content<'_>) -> String {
    let message = content.keep();
    let body: Vec<u8> = message.body().flatten().copied().collect();
    let hidden: Vec<&[u8]> = message.hidden_keys().collect();
    format!("{:?} {hidden:?} {:?} {body:?} {}", message.route(), message.header(), message.persistent())
}

/// An operation with all that is in it.
pub fn shown(op: &Op<'_>) -> String {
    match op {
        Op::Publish { queues, publishes } => {
            let queues: Vec<QueueId> = queues.iter().collect();
            let shown = |publish: &Publish<'_>| {
                let content = shown_content(&publish.content);
                format!("publish {queues:?} {:?} {} {content}", publish.channel, publish.publish_seq)
            };
            publishes.iter().map(shown).collect::<Vec<_>>().join("\n")
        }
        Op::Deliver { queue, deliveries } => {
            let shown = |delivery: &Delivery<'_>| {
                let redelivered = delivery.redelivered;
                let content = shown_content(&delivery.content);
                format!("deliver {queue:?} {:?} {} {redelivered} {content}", delivery.key, delivery.queue_tag)
            };
            deliveries.iter().map(shown).collect::<Vec<_>>().join("\n")
        }
        Op::Got(got) => {
            let (tag, left) = (got.queue_tag, got.remaining);
            let content = shown_content(&got.content);
            format!("got {:?} {:?} {tag} {} {left} {content}", got.queue, got.channel, got.redelivered)
        }
        Op::Refusal { request, code, text } => {
            format!("refusal {request} {code} {}", &text[..text.floor_char_boundary(255)])
        }
        small => format!("{small:?}"),
    }
}
