// What ws.mjs and sse.mjs have in common: the site that they test, as plain HTTP requests, and the steps
// of a test.
import { createInterface } from 'node:readline'

const script = process.argv[1].split('/').pop()
const [base] = process.argv.slice(2)
export const token = process.env.TOKEN
if (!URL.canParse(base ?? '') || !token) {
  console.error(`usage: TOKEN=… node ${script} BASE_URL, with the token of an operator`)
  process.exit(2)
}
export const url = new URL('/graphql', base).href

// ask answers an operation over HTTP, and throws what is wrong with it.
export async function ask(query, variables, authorization = `Bearer ${token}`) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json', authorization },
    body: JSON.stringify({ query, variables }),
  })
  const { data, errors } = await response.json()
  if (errors) throw new Error(`over HTTP: ${JSON.stringify(errors)}`)
  return data
}

export const register = `mutation Register($input: RegisterProbeInput!) {
  registerProbe(input: $input) { probe { id lifecycle } secret userErrors { code message } }
}`
export const heartbeat = `mutation Heartbeat($input: HeartbeatInput!) { heartbeat(input: $input) { serverTime probe { id state } } }`
export const registration = { country: 'IT', asn: 'AS64512' }
export const sign = (id) => ({ probeId: id, probeCc: 'IT', probeAsn: 'AS64512', softwareVersion: '1.0.0', uptimeSeconds: 1, queueDepth: 0 })

// join makes things happen: a probe is registered and heard, which changes what it is displayed as.
export async function join() {
  const { registerProbe } = await ask(register, { input: registration })
  const { id } = registerProbe.probe
  await ask(heartbeat, { input: sign(id) }, `Bearer ${registerProbe.secret}`)
  return id
}

// changeOf is the first change of a probe, of those that a subscription tells: what others did before may be told late.
export async function changeOf(id, changes, next = changes.next()) {
  for (; ; next = changes.next()) {
    const { probeStateChanged } = (await within(next, 'a change')).value.data
    if (probeStateChanged.probe.id === id) return probeStateChanged
  }
}

let bodies = 0
// submit sends a measurement with a body of some bytes, and returns its uid.
export async function submit(bytes) {
  const began = new Date(Date.now() - 3_600_000 + 1000 * bodies++).toISOString().slice(0, 19).replace('T', ' ')
  const content = JSON.stringify({
    report_id: `20261121T000000Z_telegram_IT_64512_n1_${script}${bodies}`, test_name: 'telegram', test_version: '0.3.1', probe_cc: 'IT', probe_asn: 'AS64512',
    resolver_asn: 'AS15169', input: null, measurement_start_time: began, test_start_time: began, test_runtime: 1.5, software_name: 'tester', software_version: '1.0.0',
    test_keys: { telegram_http_blocking: false, telegram_tcp_blocking: false, telegram_web_failure: null, telegram_web_status: 'ok' },
    annotations: { filling: 'x'.repeat(bytes) },
  })
  const { submitMeasurement } = await ask(
    `mutation ($input: SubmitMeasurementInput!) { submitMeasurement(input: $input) { measurement { uid } userErrors { message } } }`, { input: { content } })
  return submitMeasurement.measurement.uid
}

// position is the end of the log.
export const position = async () => (await ask('{ probeBoard { cursor } }')).probeBoard.cursor

// eventsSince are the numbers of all that the log has after one.
export async function eventsSince(seq) {
  const numbers = []
  for (let after = null; ;) {
    const { events } = await ask('query ($after: Cursor) { events(first: 100, after: $after) { edges { node { seq } } pageInfo { hasNextPage endCursor } } }', { after })
    for (const { node } of events.edges) {
      if (Number(node.seq) <= seq) return numbers.reverse()
      numbers.push(Number(node.seq))
    }
    if (!events.pageInfo.hasNextPage) return numbers.reverse()
    after = events.pageInfo.endCursor
  }
}

// metric is a figure of the server's.
export async function metric(name) {
  const text = await (await fetch(new URL('/metrics', base))).text()
  return Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ')[1] ?? 0)
}

// Clients that connect again try for a minute, as long as a restart may take.
export const retryMillis = 50
export const retryAttempts = 60_000 / retryMillis

// restart has whoever runs this restart the server, gracefully and at the same address; it says so
// on standard output and waits for a line on standard input.
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
export async function restart() {
  console.log('restart')
  if ((await lines.next()).done) throw new Error('nobody restarted the server')
}

// until waits for what must come.
export async function until(what, ok, millis = 20_000) {
  const late = performance.now() + millis
  while (!(await ok())) {
    if (performance.now() > late) throw new Error(`waited for ${what} in vain`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

// within is a promise that must be kept in time.
export function within(promise, what, millis = 20_000) {
  return Promise.race([promise, new Promise((_, reject) => setTimeout(reject, millis, new Error(`waited for ${what} in vain`)).unref())])
}

export function equal(got, want, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)]
  if (a !== b) throw new Error(`${what}: ${a}, want ${b}`)
}

const summary = {}
const failures = []

// A step that fails does not stop the next ones, so that one run tells all that is wrong.
export async function step(name, run) {
  const began = performance.now()
  try {
    await run()
    summary[name] = `${Math.round(performance.now() - began)} ms`
  } catch (error) {
    summary[name] = 'failed'
    failures.push(`${name}: ${error?.message ?? JSON.stringify(error)}`)
  }
}

export function finish() {
  console.log(JSON.stringify({ ok: failures.length === 0, failures, ...summary }, null, 2))
  process.exit(failures.length > 0 ? 1 : 0)
}
