// The server of the page: for the token alone, for its own name alone (DNS rebinding), GET alone, on 127.0.0.1 alone; and
// the policy lets a browser run exactly the script and style that are inside.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { type TestContext, test } from 'node:test'
import { documentOf } from '../../../daemon/ctl/page/document.ts'
import { servePage } from '../../../daemon/ctl/page/server.ts'
import { pageSources } from '../../../daemon/ctl/page/sources.ts'

type Got = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: string }

/** A server, and what it answers to a request with these parts. */
async function served(t: TestContext) {
  const asked: string[] = []
  const [slow, began] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = await servePage({
    document: documentOf(pageSources()),
    port: 0,
    answers: {
      view: async () => ({ ok: true }),
      path: async (query) => asked.push(`${query.get('from')} ${query.get('to')}`),
      slow: () => {
        began.resolve()
        return slow.promise
      },
      fails: async () => {
        throw new Error('weftd is gone')
      }
    }
  })
  t.after(() => server[Symbol.asyncDispose]())
  const { port, pathname } = new URL(server.url)
  const get = (path: string, over: { readonly method?: string; readonly host?: string } = {}): Promise<Got> =>
    new Promise((resolve, reject) => {
      const { method = 'GET', host = `127.0.0.1:${port}` } = over
      const sent = request({ host: '127.0.0.1', port, path, method, headers: { host }, agent: false }, (response) => {
        let body = ''
        response.setEncoding('utf8')
        response.on('data', (part) => (body += part))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
      })
      sent.on('error', reject)
      sent.end()
    })
  return {
    get,
    port: Number(port),
    base: pathname,
    url: server.url,
    asked,
    slow: { asked: began.promise, end: slow.resolve }
  }
}

test('the URL has a token of 192 bits on 127.0.0.1, another for each start', async (t) => {
  const [one, other] = [await served(t), await served(t)]
  assert.match(one.url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/)
  assert.notEqual(one.base, other.base)
})

test('page and answers are there for the token, and nothing is without it', async (t) => {
  const { get, base, asked } = await served(t)
  assert.equal((await get(base)).status, 200)
  const view = await get(`${base}view`)
  assert.deepEqual(
    [view.status, view.body, view.headers['content-type']],
    [200, '{"ok":true}', 'application/json; charset=utf-8']
  )
  assert.equal((await get(`${base}path?from=shop%2Fa&to=10.1.2.3`)).status, 200)
  assert.deepEqual(asked, ['shop/a 10.1.2.3'])
  const wrong = [
    '/',
    '/view',
    '//view',
    `${base.slice(0, -2)}${base.at(-2) === 'x' ? 'y' : 'x'}/view`,
    `${base.slice(0, -1)}`,
    `/x${base}`,
    '/favicon.ico',
    '/*'
  ]
  for (const path of [...wrong, `${base}nothing`, `${base}constructor`, `${base}view/x`]) {
    const { status, body } = await get(path)
    assert.equal(status, 404, path)
    assert.doesNotMatch(body, /"ok"|<html/)
  }
  assert.equal((await get('//a:b@/')).status, 400)
})

test('a request that names another host gets nothing, token or not', async (t) => {
  const { get, base, port } = await served(t)
  assert.equal((await get(base, { host: `localhost:${port}` })).status, 200)
  for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1', `127.0.0.1:${port + 1}`, 'localhost'])
    assert.equal((await get(base, { host })).status, 421, host)
})

test('only GET is served', async (t) => {
  const { get, base } = await served(t)
  for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH']) {
    const { status, headers } = await get(`${base}view`, { method })
    assert.deepEqual([status, headers.allow], [405, 'GET'], method)
  }
})

test('an answer that fails is an error with its words, as text', async (t) => {
  const { get, base } = await served(t)
  const { status, body, headers } = await get(`${base}fails`)
  assert.deepEqual([status, body, headers['content-type']], [500, 'weftd is gone', 'text/plain; charset=utf-8'])
})

test('idle connections make room for one that asks, and those that are being answered stay', async (t) => {
  const { get, base, port, slow } = await served(t)
  const waiting = get(`${base}slow`)
  await slow.asked
  const idle = Array.from({ length: 40 }, () => connect({ host: '127.0.0.1', port }))
  t.after(() => {
    for (const socket of idle) socket.destroy()
  })
  await Promise.all(
    idle.map(async (socket) => {
      socket.on('error', () => undefined)
      await once(socket, 'connect')
    })
  )
  assert.equal((await get(base)).status, 200)
  slow.end()
  assert.equal((await waiting).status, 200)
})

test('it listens on 127.0.0.1 and on no other address of this machine', async (t) => {
  const { port } = await served(t)
  const others = Object.values(networkInterfaces()).flatMap((each) => each ?? [])
  for (const { address, family } of others.filter(
    ({ address }) => address !== '127.0.0.1' && !address.startsWith('fe80')
  )) {
    const refused = await new Promise<boolean>((resolve) => {
      const socket = connect({ host: address, port, family: family === 'IPv6' ? 6 : 4 })
      socket.on('error', () => resolve(true))
      socket.on('connect', () => resolve(!socket.destroy()))
    })
    assert.ok(refused, address)
  }
})

test('every answer has the policy, with the hashes of exactly the script and the style that are inside', async (t) => {
  const { get, base } = await served(t)
  const { body } = await get(base)
  const hash = (tag: string) => {
    const [, text = '', ...more] = body.split(new RegExp(`<${tag}>|</${tag}>`))
    assert.equal(more.length, 1, `one ${tag}`)
    assert.ok(text.length > 1000)
    return `'sha256-${createHash('sha256').update(text).digest('base64')}'`
  }
  for (const path of [base, `${base}view`, '/', `${base}fails`]) {
    const { headers } = await get(path)
    const policy = new Map(
      String(headers['content-security-policy'])
        .split('; ')
        .map((each) => [each.split(' ')[0], each.split(' ').slice(1).join(' ')])
    )
    assert.deepEqual(
      [policy.get('default-src'), policy.get('script-src'), policy.get('style-src'), policy.get('connect-src')],
      ["'none'", hash('script'), hash('style'), "'self'"]
    )
    for (const none of ['base-uri', 'form-action', 'frame-ancestors']) assert.equal(policy.get(none), "'none'")
    assert.equal(policy.get('require-trusted-types-for'), "'script'")
    assert.equal(headers['referrer-policy'], 'no-referrer')
    assert.equal(headers['cache-control'], 'no-store')
    assert.equal(headers['set-cookie'], undefined)
  }
})

test('the script is one file without modules, and makes markup of no text', () => {
  const { script, html, style } = pageSources()
  assert.doesNotMatch(script, /^(import|export)\b/m)
  assert.doesNotMatch(script, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function/)
  assert.doesNotMatch(script + style, /<\/(script|style)/i)
  // Nothing is loaded from anywhere.
  assert.deepEqual(
    [...`${html}${style}${script}`.matchAll(/https?:\/\/[^'"\s]+/g)].map(([url]) => url),
    ['http://www.w3.org/2000/svg']
  )
  assert.doesNotMatch(style, /@import|url\(/)
})
