// Fails unless the server does all that GraphQL over HTTP asks of it, SHOULD and MAY included, by the
// public audit suite.
//
//	npm ci && node audit.mjs GRAPHQL_URL
//
// Prints each audit that is not ok, and their number; exit code 1 means that there is one, 2 that it
// was called wrongly.
import { auditServer } from 'graphql-http'

const audits = 61
const [url] = process.argv.slice(2)
if (!URL.canParse(url ?? '')) {
  console.error('usage: node audit.mjs GRAPHQL_URL')
  process.exit(2)
}

const results = await auditServer({ url })
for (const r of results) {
  if (r.status === 'ok') continue
  console.log(`${r.status} ${r.id} ${r.name}: ${r.reason}`)
  if (r.response) console.log(`  answered ${r.response.status} ${r.response.headers.get('content-type')}: ${r.response.bodyUsed ? '…' : (await r.response.text()).slice(0, 300)}`)
}
const ok = results.filter((r) => r.status === 'ok').length
console.log(`${ok} of ${results.length} audits are ok`)
process.exitCode = ok === results.length && ok === audits ? 0 : 1
