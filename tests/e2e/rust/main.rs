//! Runs the cases of cases.txt through lapin, one line a case.
//!
//! `E2E_URL=amqp://… e2e-lapin [CASE …]` prints `ok NAME` or `FAIL NAME: why` and exits 1 if any failed. A case that needs a restart
//! prints `restart term` or `restart kill` and waits for the line `restarted` on standard input.

mod cases;
mod session;

use std::process::ExitCode;
use std::time::Duration;

use session::{Failure, Session};

const CASE_LIMIT: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> ExitCode {
    let Ok(url) = std::env::var("E2E_URL") else {
        println!("FAIL: E2E_URL is not set");
        return ExitCode::FAILURE;
    };
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let mut code = ExitCode::SUCCESS;
    for name in e2e::case_names().filter(|name| asked.is_empty() || asked.iter().any(|one| one == name)) {
        let mut session = Session::new(&url);
        let outcome = match tokio::time::timeout(CASE_LIMIT, cases::run(name, &mut session)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure(format!("no end after {CASE_LIMIT:?}"))),
        };
        session.close().await;
        match outcome {
            Ok(()) => println!("ok {name}"),
            Err(Failure(why)) => {
                println!("FAIL {name}: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
