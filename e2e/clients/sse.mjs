// Drives the server's event streams with the reference client, graphql-sse, in distinct connections
// mode, and fails unless everything works.
//
//	npm ci && TOKEN=… node sse.mjs BASE_URL
//
// TOKEN is an operator's. When this prints a line "restart", the caller restarts the server and writes
// a line. Prints a JSON summary; exit code 1 means that a check failed, 2 that it was called wrongly.
import { createClient } from 'graphql-sse'
import { ask, changeOf, equal, eventsSince, finish, heartbeat, join, metric, position, register, registration, restart, retryAttempts, retryMillis, sign, step, submit, token, until, url, within } from './api.mjs'

const brisk = { retry: () => new Promise((resolve) => setTimeout(resolve, retryMillis)), retryAttempts }
const as = (secret) => createClient({ url, headers: { authorization: `Bearer ${secret}` }, ...brisk })
const client = as(token)

async function once(client, request) {
  const results = []
  for await (const result of client.iterate(request)) results.push(result)
  equal(results.length, 1, 'results')
  return results[0]
}

const code = (errors) => errors?.map((e) => e.extensions?.code)

await step('queries', async () => {
  equal((await once(client, { query: '{ viewer { role } }' })).data, { viewer: { role: 'OPERATOR' } }, 'the answer')
  equal((await once(client, { query: 'query A { a: __typename } query B { b: __typename }', operationName: 'B' })).data, { b: 'Query' }, 'one of two')
})

await step('mutates', async () => {
  const { registerProbe } = (await once(client, { query: register, variables: { input: registration } })).data
  const { data } = await once(as(registerProbe.secret), { query: heartbeat, variables: { input: sign(registerProbe.probe.id) } })
  equal(data.heartbeat.probe, { id: registerProbe.probe.id, state: 'ONLINE' }, 'the probe')
})

await step('tellsErrors', async () => {
  const { data, errors } = await once(client, { query: heartbeat, variables: { input: sign('prb_nobody') } })
  equal([data, errors.length, typeof errors[0].extensions.code], [null, 1, 'string'], 'a mutation that fails')
  for (const [query, want] of [['{', 'GRAPHQL_PARSE_FAILED'], ['{ nothing }', 'GRAPHQL_VALIDATION_FAILED'], ['query ($id: ID!) { probe(id: $id) { id } }', 'GRAPHQL_VALIDATION_FAILED'],
    ['subscription { events(after: "nonsense") { seq } }', 'INVALID']]) {
    const result = await once(client, { query })
    equal([result.data ?? null, code(result.errors)], [null, [want]], query)
  }
})

await step('isRefused', async () => {
  const { client, connects } = (() => {
    let n = 0
    return { client: createClient({ url, headers: { authorization: 'Bearer nonsense' }, retryAttempts: 0, on: { connecting: () => n++ } }), connects: () => n }
  })()
  const error = await once(client, { query: '{ __typename }' }).then(() => null, (e) => e)
  equal([error?.response?.status, connects()], [401, 1], 'the end')
})

await step('subscribes', async () => {
  const changes = client.iterate({ query: 'subscription { probeStateChanged(filter: { countries: [IT] }) { cursor seq to conflated probe { id } } }' })
  const pulses = client.iterate({ query: 'subscription { pulse { seq at } }' })
  const change = changes.next()
  equal(typeof (await within(pulses.next(), 'a pulse')).value.data.pulse.seq, 'number', 'the pulse')
  const id = await join()
  equal((await changeOf(id, changes, change)).conflated, 0, 'the change')
  await pulses.return()
  await changes.return()
})

await step('showsTheState', async () => {
  const id = await join()
  const shown = []
  const states = client.iterate({ query: 'subscription { probeStateChanged(snapshot: true) { from to probe { id } } }' })
  const board = (await ask('{ probeBoard { cells { id } } }')).probeBoard.cells.length
  while (shown.length < board) shown.push((await within(states.next(), 'a state')).value.data.probeStateChanged)
  equal([new Set(shown.map((s) => s.probe.id)).size, shown.filter((s) => s.from !== null).length, shown.some((s) => s.probe.id === id)], [board, 0, true], 'the states')
  await states.return()
})

await step('sendsRawBodies', async () => {
  const scored = client.iterate({ query: 'subscription { measurementScored { measurement { uid body bodySizeBytes } } }' })
  const next = scored.next()
  await until('the subscription to begin', async () => (await metric('vantage_subscriptions{field="measurementScored"}')) > 0)
  const uid = await submit(2_000_000)
  const { measurement } = (await within(next, 'a measurement')).value.data.measurementScored
  equal([measurement.uid, measurement.body.annotations.filling.length], [uid, 2_000_000], 'the measurement')
  await scored.return()
})

await step('resumesAfterRestart', async () => {
  const variables = { after: await position() }
  const before = (await ask('{ events(first: 1) { edges { node { seq } } } }')).events.edges[0].node.seq
  const got = []
  const failed = []
  let connects = 0
  const stop = client.subscribe({ query: 'subscription ($after: Cursor) { events(after: $after) { cursor seq } }', variables }, {
    next: ({ data, errors }) => {
      if (errors) return failed.push(errors)
      got.push(Number(data.events.seq))
      variables.after = data.events.cursor // the client sends these variables when it connects again
    },
    error: (e) => failed.push(String(e)),
    complete: () => failed.push('it is complete'),
  }, { connected: () => connects++ })
  for (let i = 0; i < 5; i++) await join()
  await restart()
  for (let i = 0; i < 5; i++) await join()
  const want = await eventsSince(Number(before))
  await until('all events', () => got.length >= want.length || failed.length > 0)
  equal(got, want, 'the events')
  equal([failed, connects], [[], 2], 'the ends')
  stop()
})

finish()
