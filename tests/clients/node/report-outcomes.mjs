// A reporter of node's test runner: one line a test, `outcome<TAB>name`, the suites that hold the test before its name.
import path from 'node:path';

export default async function* reportOutcomes(events) {
  const names = [];
  for await (const event of events) {
    if (event.type === 'test:start') {
      names[event.data.nesting] = event.data.name;
      names.length = event.data.nesting + 1;
    }
    const outcome = { 'test:pass': 'passed', 'test:fail': 'failed' }[event.type];
    if (!outcome || event.data.details?.type === 'suite') continue;
    const name = [...names.slice(0, event.data.nesting), event.data.name].join(' > ');
    const skipped = event.data.skip !== undefined || event.data.todo !== undefined;
    yield `${skipped ? 'skipped' : outcome}\t${path.basename(event.data.file ?? '')} > ${name}\n`;
  }
}
