// Fails when anything in dist would make a browser fetch from another host. Addresses in strings and
// in links that a person follows are fine: namespaces, licences and documentation are full of them.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

const outside = String.raw`(?:https?:)?//[\w.-]+\.\w`
const fetched = {
  html: [
    new RegExp(String.raw`\ssrc(?:set)?\s*=\s*["']?\s*${outside}[^"'\s>]*`, 'gi'),
    new RegExp(String.raw`<(?:link|base)\b[^>]*\shref\s*=\s*["']?\s*${outside}[^>]*`, 'gi'),
  ],
  css: [new RegExp(String.raw`url\(\s*["']?\s*${outside}[^)]*`, 'gi'), new RegExp(String.raw`@import\s+["']\s*${outside}[^;]*`, 'gi')],
  js: [
    new RegExp(String.raw`\b(?:import|from|importScripts|fetch|Worker|WebSocket|EventSource|URL)\s*\(?\s*["'\x60]${outside}[^"'\x60]*`, 'g'),
    new RegExp(String.raw`\.(?:src|href)\s*=\s*["'\x60]${outside}[^"'\x60]*`, 'g'),
    new RegExp(String.raw`\ssrc\s*=\s*\\?["']${outside}[^"']*`, 'g'),
    new RegExp(String.raw`url\(\s*\\?["']?${outside}[^)]*`, 'g'),
  ],
}

const dir = join(import.meta.dirname, 'dist')
let files = 0
let bad = 0
for (const name of await readdir(dir, { recursive: true })) {
  const rules = fetched[name.split('.').pop()]
  if (!rules) continue
  files++
  const text = await readFile(join(dir, name), 'utf8')
  for (const rule of rules) {
    for (const [hit] of text.matchAll(rule)) {
      console.error(`check: dist/${name} would fetch from outside: ${hit.trim().slice(0, 120)}`)
      bad++
    }
  }
}
if (files < 3) {
  console.error('check: dist holds no bundle')
  bad++
}
process.exitCode = bad ? 1 : 0
if (!bad) console.log(`check: ${files} files, nothing is fetched from outside`)
