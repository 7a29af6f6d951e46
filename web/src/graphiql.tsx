import 'graphiql/setup-workers/vite' // first: Monaco asks for its workers while it loads
import { explorerPlugin } from '@graphiql/plugin-explorer'
import { HISTORY_PLUGIN } from '@graphiql/plugin-history'
import { createGraphiQLFetcher, type Fetcher, type FetcherOpts, type FetcherParams } from '@graphiql/toolkit'
import { GraphiQL } from 'graphiql'
import { Kind, parse } from 'graphql'
import { createClient } from 'graphql-ws'
import { createRoot } from 'react-dom/client'
import 'graphiql/style.css'
import '@graphiql/plugin-explorer/style.css'
import './graphiql.css'

const url = '/graphql'
const socketUrl = location.origin.replace(/^http/, 'ws') + url

const examples = import.meta.glob<string>('./examples/*.graphql', { query: '?raw', import: 'default', eager: true })
const tabs = Object.keys(examples).sort().map((file) => ({ query: examples[file] }))

// A browser cannot set headers on a websocket: the one that matters travels in connection_init.
// A client per operation, because a token changed in the headers editor must not meet
// a socket opened with the old one. Being lazy, a client that is not used opens nothing.
const fetcher: Fetcher = (params, options) => {
  const authorization = Object.entries(options?.headers ?? {}).find(([name]) => name.toLowerCase() === 'authorization')
  const wsClient = createClient({
    url: socketUrl,
    lazy: true,
    connectionParams: authorization && { authorization: authorization[1] },
  })
  const fetch = createGraphiQLFetcher({ url, wsClient, enableIncrementalDelivery: false })
  return fetch(...named(params, options))
}

// GraphiQL reads a tab only a moment after it was opened, and until then names the operation of the tab
// before. The text that is sent is read here, so that a quick Ctrl-Enter runs what is on the screen.
function named(params: FetcherParams, options?: FetcherOpts): [FetcherParams, FetcherOpts?] {
  try {
    const documentAST = parse(params.query)
    const names = documentAST.definitions.flatMap((d) => (d.kind === Kind.OPERATION_DEFINITION ? d.name?.value : []))
    const operationName = names.includes(params.operationName ?? undefined) ? params.operationName : names[0]
    return [{ ...params, operationName }, { ...options, documentAST }]
  } catch {
    return [params, options] // not GraphQL: the server says where it goes wrong
  }
}

const plugins = [HISTORY_PLUGIN, explorerPlugin()]

function Page() {
  return (
    <>
      <header className="banner">
        <a href="/">Vantage</a>: Ctrl-Enter runs a tab; StateChanges and Scored stay open and show events. A token goes under
        Headers, tab by tab: <code>{'{"authorization":"Bearer …"}'}</code>
      </header>
      {/* Headers hold tokens, so they are never written to the browser's storage. */}
      <GraphiQL fetcher={fetcher} plugins={plugins} defaultTabs={tabs} shouldPersistHeaders={false}>
        <GraphiQL.Logo>Vantage</GraphiQL.Logo>
      </GraphiQL>
    </>
  )
}

createRoot(document.getElementById('root')!).render(<Page />)
