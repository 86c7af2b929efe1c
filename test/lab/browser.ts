// The page of weftctl in a real Chromium, for tests: what is served, what is drawn, and what the browser asked for.
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, launch, type Page } from 'puppeteer-core'
import type { Asked } from '../../daemon/ctl/page/facts.ts'
import type { Kubectl } from '../../daemon/ctl/remote.ts'
import { type Deps, run } from '../../daemon/ctl/run.ts'
import { until } from './run.ts'

const found = spawnSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).stdout.trim()
/** Why tests in a browser are skipped, or false. */
export const withoutBrowser: string | false = found === '' ? 'chromium is not installed (scripts/browser)' : false

export const startBrowser = (): Promise<Browser> =>
  launch({
    executablePath: found,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
    ]
  })

/** `weftctl page WORDS` until the test disposes of it. */
export async function servePages(words: readonly string[], over: Partial<Deps> = {}) {
  const end = new AbortController()
  let [out, complaints] = ['', '']
  const exit = run(['page', ...words], {
    ...{ env: {}, version: '1.2.3', stopped: () => end.signal },
    out(text) {
      out += text
    },
    complain(text) {
      complaints += text
    },
    ...over
  })
  await until(() => out !== '' || complaints !== '', { what: 'weftctl page to print its URL' })
  const url = /http:\S+/.exec(out)?.[0]
  if (url === undefined) throw new Error(complaints)
  return {
    url,
    async [Symbol.asyncDispose]() {
      end.abort()
      await exit
    }
  }
}

/** `kubectl weft page` of a cluster whose weft pods answer what `nodes` returns at that moment. */
export function serveCluster(nodes: () => readonly Asked[]) {
  const kubectl: Kubectl = async (words) => {
    const asked = nodes()
    if (!words.includes('exec'))
      return { exit: 0, stdout: asked.map(({ name }, at) => `weft weft-${at} ${name}\n`).join(''), stderr: '' }
    const facts = asked[Number(/ weft-(\d+) /.exec(words.join(' '))?.[1])]?.facts
    const isPage = words.includes('page')
    if (facts === undefined || !isPage) return { exit: 1, stdout: '', stderr: 'error: pod does not exist' }
    return { exit: 0, stdout: JSON.stringify(facts), stderr: '' }
  }
  return servePages([], { isPlugin: true, kubectl: (words) => kubectl(words) })
}

/** A window that has drawn the page; whatever it asked for, and all that it complained about. */
export async function openPage(browser: Browser, url: string) {
  const page = await browser.newPage()
  const requests: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => requests.push(request.url()))
  page.on('console', (message) => complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.setViewport({ width: 1280, height: 900 })
  await page.goto(url)
  await drawn(page)
  return { page, requests, complaints }
}

const drawn = (page: Page) => page.waitForFunction("document.querySelector('#nodes tbody') !== null")

/** Has the page ask again now, as its button does, without moving the focus. */
export async function refreshed(page: Page): Promise<void> {
  const answered = page.waitForResponse((response) => response.url().endsWith('/view'))
  // Past the seconds for which answers are shown without asking again.
  await page.evaluate("document.getElementById('pause').click(); document.getElementById('pause').click()")
  await answered
}

export const textOf = (page: Page, selector: string): Promise<string> =>
  page.$eval(selector, (element) => (element.textContent ?? '').replaceAll(/\s+/g, ' ').trim())

export const textsOf = (page: Page, selector: string): Promise<string[]> =>
  page.$$eval(selector, (elements) =>
    elements.map((element) => (element.textContent ?? '').replaceAll(/\s+/g, ' ').trim())
  )

/** How many elements there are. */
export const countOf = (page: Page, selector: string): Promise<number> =>
  page.evaluate((each) => document.querySelectorAll(each).length, selector)

/** Keeps a picture of each colour scheme where WEFT_SCREENSHOTS says. */
export async function pictures(page: Page, name: string): Promise<void> {
  const folder = process.env.WEFT_SCREENSHOTS
  if (!folder) return
  mkdirSync(folder, { recursive: true })
  for (const scheme of ['light', 'dark']) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
    await page.screenshot({ path: join(folder, `${name}-${scheme}.png`) })
  }
}
