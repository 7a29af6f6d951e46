// Opens GraphiQL in Chromium as a person would and fails unless everything on it works with no
// network but the server's own.
//
//	npm ci && node graphiql.mjs BASE_URL [SCREENSHOT.png]
//
// The caller sees to it that probe states change while this runs. CHROMIUM names the browser, TOKEN is sent
// with the operations, EVENT_SECONDS (60) is how long to wait for an event. Prints a JSON summary;
// exit code 1 means that a check failed, 2 that it was called wrongly.
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const [base, screenshot] = process.argv.slice(2)
if (!URL.canParse(base ?? '')) {
  console.error('usage: node graphiql.mjs BASE_URL [SCREENSHOT.png]')
  process.exit(2)
}
const origin = new URL(base).origin
const host = new URL(base).hostname
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const eventMillis = 1000 * Number(process.env.EVENT_SECONDS ?? 60)
const token = process.env.TOKEN
if (!existsSync(executablePath)) {
  console.error(`no browser at ${executablePath}: apt-get install chromium, or set CHROMIUM`)
  process.exit(2)
}

const summary = { base: origin, requests: 0, authorized: 0, workers: 0, offSite: [], consoleErrors: [], pageErrors: [], cspViolations: [], failedRequests: [] }
const failures = []
const millis = (since) => Math.round(performance.now() - since)

const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
    `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE ${host}, EXCLUDE 127.0.0.1, EXCLUDE localhost`,
  ],
})
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
page.setDefaultTimeout(60_000)

// Two fences: the context refuses what is off the server's origin and writes it down; the resolver
// rules above stop what the context does not see, such as the browser's own traffic.
const own = (url) => url.protocol === 'data:' || url.protocol === 'blob:' || url.origin.replace(/^ws/, 'http') === origin
await page.context().route((url) => !own(url), (route) => {
  summary.offSite.push(route.request().url())
  return route.abort()
})
page.on('websocket', (socket) => {
  if (!own(new URL(socket.url()))) summary.offSite.push(socket.url())
  socket.on('framesent', ({ payload }) => {
    if (payload.includes('"connection_init"') && payload.includes(`"authorization":"Bearer ${token}"`)) summary.authorized++
  })
})
page.on('request', (request) => {
  summary.requests++
  if (request.headers().authorization === `Bearer ${token}`) summary.authorized++
})
page.on('requestfailed', (request) => summary.failedRequests.push(`${request.url()}: ${request.failure()?.errorText}`))
page.on('response', (response) => {
  if (response.status() >= 400) summary.failedRequests.push(`${response.url()}: ${response.status()}`)
})
page.on('pageerror', (error) => summary.pageErrors.push(error.message))
page.on('console', (message) => {
  if (/Content Security Policy/i.test(message.text())) summary.cspViolations.push(message.text())
  else if (message.type() === 'error') summary.consoleErrors.push(message.text())
})
await page.exposeFunction('reportViolation', (violation) => summary.cspViolations.push(violation))
await page.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (e) => window.reportViolation(`${e.violatedDirective}: ${e.blockedURI}`))
})

// A step that fails does not stop the next ones, so that one run tells all that is wrong; but
// without the page there is nothing to tell.
async function step(name, run) {
  if (summary.opens === 'failed') return
  const began = performance.now()
  try {
    await run()
    summary[name] = `${millis(began)} ms`
  } catch (error) {
    summary[name] = 'failed'
    failures.push(`${name}: ${error.message.split('\n')[0]}`)
  }
}

// The response pane is a Monaco editor, which draws only the lines in view. GraphiQL's own models hold
// the text but are out of reach, so what is on the screen is read, with the spaces Monaco draws.
const shown = () =>
  page.evaluate(() =>
    [...document.querySelectorAll('.graphiql-response .view-line')]
      .sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top))
      .map((line) => line.textContent.replaceAll('\u00a0', ' '))
      .join('\n'),
  )

async function shows(pattern, what, timeout = 60_000) {
  const began = performance.now()
  let text = await shown()
  while (!pattern.test(text)) {
    if (millis(began) > timeout) throw new Error(`no ${what} after ${timeout / 1000} s; the response pane shows ${JSON.stringify(text.slice(0, 300))}`)
    await page.waitForTimeout(100)
    text = await shown()
  }
  if (/"errors":/.test(text)) throw new Error(`the answer has errors: ${text.slice(0, 300)}`)
}

const tab = (name) => page.locator(`.graphiql-tab-button[title="${name}"]`)
const execute = () => page.locator('.graphiql-execute-button').click()

// Each tab has headers of its own.
async function authorize() {
  if (!token) return
  await page.getByRole('button', { name: 'Headers', exact: true }).click()
  await page.locator('.graphiql-editor-tool .graphiql-editor:not(.hidden) .view-lines').click()
  await page.keyboard.press('ControlOrMeta+A')
  await page.keyboard.insertText(JSON.stringify({ authorization: `Bearer ${token}` }))
}

await step('opens', async () => {
  const response = await page.goto(`${origin}/graphiql`)
  if (response.status() !== 200) throw new Error(`GET /graphiql is ${response.status()}`)
  const policy = response.headers()['content-security-policy'] ?? ''
  if (!policy.includes("default-src 'self'")) throw new Error(`GET /graphiql has the policy ${JSON.stringify(policy)}`)
  await page.locator('.graphiql-query-editor .view-line').first().waitFor()
  await page.locator('.banner').getByText('authorization').waitFor()
})

await step('opensOnExamples', async () => {
  for (const name of ['ProbesOnline', 'LatestAnomalies', 'StateChanges', 'Scored', 'Service']) {
    await tab(name).waitFor()
  }
})

for (const [name, root] of [['ProbesOnline', 'probes'], ['LatestAnomalies', 'measurements'], ['Service', 'service']]) {
  await step(`runs${name}`, async () => {
    await tab(name).click()
    await authorize()
    await execute()
    await shows(new RegExp(`"data": \\{\\s+"${root}": \\{`), 'data')
  })
}

await step('opensDocumentation', async () => {
  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click()
  await page.locator('.graphiql-doc-explorer').getByText('Subscription').first().waitFor()
})

await step('opensExplorer', async () => {
  await page.getByRole('button', { name: 'Show GraphiQL Explorer' }).click()
  await page.locator('.graphiql-explorer-root').getByText('schemaHash').first().waitFor()
  await page.getByRole('button', { name: 'Hide GraphiQL Explorer' }).click()
})

await step('showsAnEvent', async () => {
  await tab('StateChanges').click()
  await authorize()
  await execute()
  await shows(/"probeStateChanged": \{[^]*"occurredAt": "/, 'event', eventMillis)
  if (screenshot) await page.screenshot({ path: screenshot })
  await execute() // the same button stops it
})

summary.workers = page.workers().length
if (token && summary.authorized !== 4) failures.push(`the token went with ${summary.authorized} of 4 operations`)
if (summary.workers === 0) failures.push('no worker runs: Monaco fell back to the main thread')
for (const kind of ['offSite', 'consoleErrors', 'pageErrors', 'cspViolations', 'failedRequests']) {
  if (summary[kind].length > 0) failures.push(`${kind}: ${summary[kind].slice(0, 5).join(' | ')}`)
}
if (screenshot && failures.length > 0) await page.screenshot({ path: screenshot })
await browser.close()

console.log(JSON.stringify({ ok: failures.length === 0, failures, ...summary }, null, 2))
process.exitCode = failures.length > 0 ? 1 : 0
