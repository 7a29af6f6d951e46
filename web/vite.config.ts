import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { constants, gzip } from 'node:zlib'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

const out = 'dist'

// Empties dist except for its README, which is committed so that go:embed finds the folder
// before the first build. Vite's own emptyOutDir would delete it.
function emptyOut(): Plugin {
  return {
    name: 'empty-out',
    apply: 'build',
    async buildStart() {
      for (const name of await readdir(out)) {
        if (name !== 'README') await rm(join(out, name), { recursive: true })
      }
    },
  }
}

// Writes FILE.gz beside each file that gains by it, so that the server never compresses.
function precompress(): Plugin {
  return {
    name: 'precompress',
    apply: 'build',
    enforce: 'post',
    async closeBundle() {
      for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || entry.name === 'README') continue
        const file = join(entry.parentPath, entry.name)
        const plain = await readFile(file)
        const packed = await promisify(gzip)(plain, { level: constants.Z_BEST_COMPRESSION })
        if (packed.length < plain.length * 0.9) await writeFile(`${file}.gz`, packed)
      }
    },
  }
}

// GraphiQL's style sheets carry two families of web fonts as base64: 340 kB of packed bytes
// that system fonts spare every visitor. Monaco's icons (codicon) stay.
function noWebFonts(): Plugin {
  return {
    name: 'no-web-fonts',
    enforce: 'pre',
    transform(code, id) {
      if (!/node_modules\/(@graphiql|graphiql)\/.*\.css/.test(id)) return
      return code.replace(/@font-face\s*\{(?![^}]*codicon)[^}]*\}/g, '')
    },
  }
}

export default defineConfig({
  plugins: [react(), noWebFonts(), emptyOut(), precompress()],
  worker: { format: 'es' },
  build: {
    outDir: out,
    emptyOutDir: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000, // Monaco is 2.8 MB, and only /graphiql loads it
    reportCompressedSize: false,
    rolldownOptions: {
      input: ['index.html', 'graphiql.html'],
      output: { keepNames: true }, // GraphiQL titles its icons with the names of their functions
      // "use no memo" and "use client" in libraries speak to compilers that do not run here.
      onLog: (level, log, report) => log.code !== 'MODULE_LEVEL_DIRECTIVE' && report(level, log),
    },
  },
  server: { proxy: { '/graphql': { target: 'http://127.0.0.1:8080', ws: true } } },
})
