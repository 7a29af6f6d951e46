// Drives the server's websocket with the reference client, graphql-ws, and fails unless everything works.
//
//	npm ci && TOKEN=… node ws.mjs BASE_URL
//
// TOKEN is an operator's. When this prints a line "restart", the caller restarts the server and writes
// a line. Prints a JSON summary; exit code 1 means that a check failed, 2 that it was called wrongly.
import { createClient } from 'graphql-ws'
import { WebSocket } from 'ws'
import { ask, changeOf, equal, eventsSince, finish, heartbeat, join, metric, position, register, registration, restart, retryAttempts, retryMillis, sign, step, submit, token, until, url, within } from './api.mjs'

// A watch is a client whose sockets are watched.
function watch(options = {}) {
  const seen = { connecting: 0, sockets: [], codes: [], reasons: [], pongs: 0 }
  const client = createClient({
    url: url.replace(/^http/, 'ws'), webSocketImpl: WebSocket, connectionParams: { authorization: `Bearer ${token}` }, retryWait: () => new Promise((resolve) => setTimeout(resolve, retryMillis)),
    retryAttempts, onNonLazyError: () => {}, ...options,
    on: {
      connecting: () => seen.connecting++,
      opened: (socket) => seen.sockets.push(socket),
      pong: (received) => { if (received) seen.pongs++ },
      closed: ({ code, reason }) => {
        seen.codes.push(code)
        seen.reasons.push(reason)
      },
    },
  })
  return { client, seen }
}

// once is the only result of an operation.
async function once(client, payload) {
  const results = []
  for await (const result of client.iterate(payload)) results.push(result)
  equal(results.length, 1, 'results')
  return results[0]
}

const code = (errors) => errors?.map((e) => e.extensions?.code)

await step('queries', async () => {
  const { client, seen } = watch()
  equal((await once(client, { query: '{ viewer { role } }' })).data, { viewer: { role: 'OPERATOR' } }, 'the answer')
  const two = await Promise.all(['A', 'B'].map((operationName) => once(client, { query: 'query A { a: __typename } query B { b: __typename }', operationName })))
  equal(two.map((r) => r.data), [{ a: 'Query' }, { b: 'Query' }], 'two at a time')
  await until('the socket to be closed', () => seen.codes.length > 0)
  equal(seen.codes.every((c) => c === 1000), true, `lazily closed with ${seen.codes}`)
})

await step('mutates', async () => {
  const { registerProbe } = (await once(watch().client, { query: register, variables: { input: registration } })).data
  const probe = watch({ connectionParams: { authorization: `Bearer ${registerProbe.secret}` } })
  const { data } = await once(probe.client, { query: heartbeat, variables: { input: sign(registerProbe.probe.id) } })
  equal(data.heartbeat.probe, { id: registerProbe.probe.id, state: 'ONLINE' }, 'the probe')
})

await step('tellsErrors', async () => {
  const { client, seen } = watch({ lazy: false })
  const { data, errors } = await once(client, { query: heartbeat, variables: { input: sign('prb_nobody') } })
  equal([data, errors.length, typeof errors[0].extensions.code], [null, 1, 'string'], 'a mutation that fails')
  for (const [query, want] of [['{', 'GRAPHQL_PARSE_FAILED'], ['{ nothing }', 'GRAPHQL_VALIDATION_FAILED'], ['query ($id: ID!) { probe(id: $id) { id } }', 'GRAPHQL_VALIDATION_FAILED']]) {
    const error = await within(new Promise((resolve, reject) => client.subscribe({ query }, { next: reject, error: resolve, complete: reject })), `the error of ${query}`)
    equal(code(error), [want], query)
  }
  const bad = await within(new Promise((resolve) => client.subscribe({ query: 'subscription { events(after: "nonsense") { seq } }' },
    { next: ({ errors }) => resolve(code(errors)), error: (e) => resolve(code(e)), complete: resolve })), 'the error of a subscription')
  equal(bad, ['INVALID'], 'a bad cursor')
  equal([seen.sockets.length, seen.codes], [1, []], 'it all goes over one socket')
  await client.dispose()
})

await step('subscribes', async () => {
  const { client, seen } = watch()
  const changes = client.iterate({ query: 'subscription { probeStateChanged(filter: { countries: [IT] }) { cursor seq to conflated probe { id } } }' })
  const pulses = client.iterate({ query: 'subscription { pulse { seq at } }' })
  const change = changes.next()
  equal(typeof (await within(pulses.next(), 'a pulse')).value.data.pulse.seq, 'number', 'the pulse')
  const id = await join()
  equal((await changeOf(id, changes, change)).conflated, 0, 'the change')
  equal(seen.sockets.length, 1, 'sockets')
  await pulses.return()
  const other = changes.next()
  await changeOf(await join(), changes, other)
  equal(seen.codes, [], 'the socket goes on')
  await changes.return()
  await until('the socket to be closed', () => seen.codes.length > 0)
  equal(seen.codes, [1000], 'when nothing is left')
})

await step('showsTheState', async () => {
  const id = await join()
  const { client } = watch()
  const shown = []
  const states = client.iterate({ query: 'subscription { probeStateChanged(snapshot: true) { cursor from to probe { id } } }' })
  const board = (await ask('{ probeBoard { cells { id } } }')).probeBoard.cells.length
  while (shown.length < board) shown.push((await within(states.next(), 'a state')).value.data.probeStateChanged)
  equal([new Set(shown.map((s) => s.probe.id)).size, shown.filter((s) => s.from !== null).length, shown.some((s) => s.probe.id === id)], [board, 0, true], 'the states')
  await states.return()
})

await step('connectsEagerly', async () => {
  const { client, seen } = watch({ lazy: false, keepAlive: 100 })
  await until('pongs', () => seen.pongs > 2)
  equal([seen.sockets.length, seen.codes], [1, []], 'the socket')
  await client.dispose()
  await until('the socket to be closed', () => seen.codes.length > 0)
})

// The client itself would try 4403 again, in case that access is granted meanwhile.
await step('isRefused', async () => {
  const { client, seen } = watch({ connectionParams: { authorization: 'Bearer nonsense' }, shouldRetry: ({ code }) => code !== 4403 })
  const closed = await within(new Promise((resolve, reject) => client.subscribe({ query: '{ __typename }' }, { next: reject, error: resolve, complete: reject })), 'the end')
  equal([closed.code, closed.reason, seen.connecting], [4403, 'UNAUTHENTICATED', 1], 'the end')
})

// A follower gets the results of a subscription through every loss of its connection: each time it goes
// on with the cursor that it has.
function follow(client, query, variables, field) {
  const got = []
  const failed = []
  client.subscribe({ query, variables }, {
    next: ({ data, errors }) => {
      if (errors) return failed.push(errors)
      got.push(data[field])
      variables.after = data[field].cursor // the client sends these variables when it connects again
    },
    error: (e) => failed.push(e),
    complete: () => failed.push('it is complete'),
  })
  return { got, failed }
}

await step('resumesAfterRestart', async () => {
  const { client, seen } = watch({ shouldRetry: () => true }) // it takes a server that is not up yet for something worse otherwise
  const before = (await ask('{ events(first: 1) { edges { node { seq } } } }')).events.edges[0].node.seq
  const { got, failed } = follow(client, 'subscription ($after: Cursor) { events(after: $after) { cursor seq } }', { after: await position() }, 'events')
  for (let i = 0; i < 5; i++) await join()
  await restart()
  for (let i = 0; i < 5; i++) await join()
  const want = await eventsSince(Number(before))
  await until('all events', () => got.length >= want.length || failed.length > 0)
  equal(got.map((e) => Number(e.seq)), want, 'the events')
  equal([failed, seen.codes[0], seen.codes.every((c) => c === 1012 || c === 1006)], [[], 1012, true], 'the ends') // 1006: not up yet
  await client.dispose()
})

await step('resumesWhenSlow', async () => {
  const { client, seen } = watch()
  const { got, failed } = follow(client, 'subscription ($after: Cursor) { measurementScored(after: $after) { cursor measurement { uid body } } }', { after: await position() }, 'measurementScored')
  const uids = [await submit(10)]
  await until('a first measurement', () => got.length === 1)
  const [socket] = seen.sockets
  socket.pause()
  // The server gives up once more is waiting than the kernel and it keep; a second later it goes without a word. So who
  // looks does not wait until another body is taken.
  let reading = false
  const givenUp = async () => (await metric('vantage_subscriptions{field="measurementScored"}')) === 0
  await Promise.all([
    until('the end of waiting for a reader who has stopped', givenUp, 60_000).finally(() => {
      reading = true
      socket.resume()
    }),
    (async () => {
      while (!reading) uids.push(await submit(1_000_000))
    })(),
  ])
  await until('all measurements', () => got.length >= uids.length || failed.length > 0)
  equal(got.map((m) => m.measurement.uid), uids, 'the measurements')
  equal([failed, seen.codes], [[], [4503]], 'the ends')
  await client.dispose()
})

finish()
