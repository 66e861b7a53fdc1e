// Runs the cases of cases.txt through amqplib, one line a case.
//
// `E2E_URL=amqp://… node main.js [CASE …]` prints `ok NAME` or `FAIL NAME: why` and exits 1 if any failed. A case that needs a
// restart prints `restart term` or `restart kill` and waits for the line `restarted` on standard input.
'use strict';

const readline = require('node:readline');
const { CASES, Session } = require('./cases');

const CASE_SECONDS = 90;

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks whoever runs us to restart the broker, and waits until it serves again. */
async function restart(how) {
  console.log(`restart ${how}`);
  const { value } = await input.next();
  if (value !== 'restarted') throw new Error(`nobody restarted the broker: ${value}`);
}

/** Rejects when a case takes too long. */
function deadline() {
  return new Promise((_resolve, reject) => {
    setTimeout(() => reject(new Error(`no end after ${CASE_SECONDS} s`)), CASE_SECONDS * 1000).unref();
  });
}

async function main() {
  const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(CASES);
  let failed = false;
  for (const name of names) {
    const session = new Session(process.env.E2E_URL, restart);
    try {
      await Promise.race([CASES[name](session), deadline()]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name}: ${String(error).replace(/\s+/g, ' ')}`);
    } finally {
      await session.close();
    }
  }
  process.exit(failed ? 1 : 0);
}

main();
