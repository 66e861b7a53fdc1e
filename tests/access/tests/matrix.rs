//! Every operation as every user: the table, RabbitMQ's recorded answers and brokerd agree.
#![allow(clippy::unwrap_used, clippy::panic)]

use access::matrix::{self, OPERATIONS};
use access::node::Node;
use access::session::{Session, login};

/// What RabbitMQ 3.10.8 answered.
const RECORDED: &str = include_str!("../recorded/matrix.txt");

#[test]
fn the_table_is_what_rabbitmq_was_recorded_to_answer() {
    assert_eq!(matrix::to_text(&matrix::expected()), RECORDED);
}

#[test]
fn brokerd_refuses_what_the_table_says_and_nothing_else() {
    let mut node = Node::start("").unwrap();
    let port = node.port();
    let played = matrix::play(&mut node, port).unwrap();
    let expected = matrix::expected();
    let mut wrong = Vec::new();
    for ((operation, played), expected) in OPERATIONS.iter().zip(&played).zip(&expected) {
        for (user, (played, expected)) in played.iter().zip(expected).enumerate() {
            if played != expected {
                wrong.push(format!("{} by user {user:06b}: expected {expected}\n  got {played}", operation.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), OPERATIONS.len() * matrix::USERS, wrong.join("\n"));
}

#[test]
fn who_has_no_permissions_in_a_vhost_does_not_get_in() {
    let node = Node::start("").unwrap();
    let user = broker_core::access::User {
        name: "nobody".into(),
        password: Some(broker_core::access::PasswordHash::rabbit_sha256(b"secret", [0; 4])),
        tags: vec!["administrator".into()],
    };
    node.apply(broker_meta::command::put_user(&user));
    let refused = Session::open_with(node.port(), login("nobody")).unwrap().err();
    let text = "connection 530 NOT_ALLOWED - access to vhost '/' refused for user 'nobody'";
    assert_eq!(refused.as_deref(), Some(text), "also an administrator needs permissions");
}
