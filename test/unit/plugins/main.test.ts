// The executable's program on Node: one CNI call from the environment to what is printed, against a real socket.

import { deepEqual, equal, match } from 'node:assert/strict'
import { readlinkSync, statSync } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { main } from '../../../plugins/main.ts'
import type { CniRequest } from '../../../plugins/protocol.ts'
import { listen } from './daemon-on-socket.ts'
import { type Deps, HostOnNode } from './host-on-node.ts'

const configuration = '{"name":"net1","cniVersion":"1.1.0","type":"weft"}'
const environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/c1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
  PATH: '/usr/bin:/bin',
  TRACEPARENT: '00-malformed',
  WEFTD_SOCKET: '/nonexistent/weftd.sock'
}

async function run(deps: Deps) {
  const host = new HostOnNode(deps)
  const exit = await main(host)
  return { exit, host, printed: host.output === '' ? undefined : JSON.parse(host.output) }
}

describe('without a daemon', () => {
  test('VERSION answers without reading standard input', async () => {
    const { exit, host, printed } = await run({ environment: { CNI_COMMAND: 'VERSION' } })
    equal(exit, 0)
    deepEqual(printed, {
      cniVersion: '1.1.0',
      supportedVersions: ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
    })
    equal(host.hasReadInput, false)
  })
  test('without CNI_COMMAND it tells on standard error what it is', async () => {
    for (const nothing of [{}, { CNI_COMMAND: '' }]) {
      const { exit, host } = await run({ environment: nothing, program: '/opt/cni/bin/bridge' })
      equal(exit, 0)
      equal(host.output, '')
      match(host.error, /^bridge: .*\nCNI protocol versions supported: 0\.1\.0, .*1\.1\.0\n$/)
    }
  })
  for (const [verb, code] of [
    ['ADD', 11],
    ['CHECK', 11],
    ['DEL', 11],
    ['GC', 11],
    ['STATUS', 50]
  ] as const) {
    test(`${verb} is error ${code} with the socket and the cure`, async () => {
      const { exit, printed } = await run({ environment: { ...environment, CNI_COMMAND: verb }, input: configuration })
      equal(exit, 1)
      equal(printed.code, code)
      equal(printed.cniVersion, '1.1.0')
      match(printed.msg, /\/nonexistent\/weftd\.sock/)
      match(printed.details, /systemctl status weftd/)
      equal(/not found|no such file or directory/i.test(JSON.stringify(printed)), false)
    })
  }
  test('a missing variable is reported without reading standard input, a bad configuration before the daemon is asked', async () => {
    const missing = await run({ environment: { CNI_COMMAND: 'ADD' } })
    deepEqual([missing.exit, missing.printed.code, missing.host.hasReadInput], [1, 4, false])
    equal((await run({ environment, input: '{' })).printed.code, 6)
    equal((await run({ environment: { ...environment, CNI_COMMAND: 'FOO' }, input: configuration })).printed.code, 4)
  })
  test('no error of DEL has the words that make containerd forget it, not even where they come from the caller', async () => {
    const del = { ...environment, CNI_COMMAND: 'DEL' }
    for (const [changes, code] of [
      [{ environment: { ...del, CNI_CONTAINERID: 'not found' }, input: configuration }, 4],
      [{ environment: { ...del, CNI_IFNAME: 'a/not found' }, input: configuration }, 4],
      [{ environment: del, input: '"Not Found"' }, 6],
      [{ environment: del, input: 'no such file or directory' }, 6],
      [{ environment: del, input: '{"name":"not found"}' }, 7],
      [{ environment: del, input: '{"name":"n","cniVersion":"not found"}' }, 1],
      [{ environment: { ...del, WEFTD_SOCKET: '/run/not found/s' }, input: configuration }, 11]
    ] as const) {
      const { exit, printed } = await run(changes)
      deepEqual([exit, printed.code], [1, code], JSON.stringify(printed))
      equal(/not found|no such file or directory/i.test(`${printed.msg} ${printed.details}`), false, printed.msg)
    }
  })
  test('standard input that cannot be read is error 5 with the reason', async () => {
    const { exit, printed } = await run({ environment })
    deepEqual([exit, printed.code], [1, 5])
    match(printed.details, /Bad file descriptor/)
  })
  test('more than 10 MiB of standard input is error 5 with the limit', async () => {
    const { printed } = await run({ environment, input: ' '.repeat(10 * 1024 * 1024 + 1) })
    equal(printed.code, 5)
    match(printed.details, /longer than 10485760 bytes/)
  })
})

describe('with a daemon', () => {
  test('the call travels as it came, and the answer is printed as it is', async () => {
    await using daemon = await listen(() =>
      JSON.stringify({ v: 1, exit: 0, stdout: '{"cniVersion":"1.1.0"}\n', stderr: 'note\n' })
    )
    const input = `${configuration.slice(0, -1)} , "x":"ü\\u0000"}\n`
    const { exit, host } = await run({
      program: 'loopback',
      environment: { ...environment, WEFTD_SOCKET: daemon.socketPath },
      input
    })
    deepEqual([exit, host.output, host.error], [0, '{"cniVersion":"1.1.0"}\n', 'note\n'])
    const { CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH, TRACEPARENT } = environment
    deepEqual(daemon.requests, [
      {
        v: 1,
        plugin: 'loopback',
        namespace: readlinkSync('/proc/self/ns/net'),
        root: `${statSync('/').dev}:${statSync('/').ino}`,
        env: { CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH, TRACEPARENT },
        stdin: input,
        deadlineMs: 100_000,
        did: []
      }
    ])
  })
  test('a failure that the daemon reports is the exit status', async () => {
    await using daemon = await listen(() => JSON.stringify({ v: 1, exit: 1, stdout: '{"code":7}\n' }))
    const { exit, printed } = await run({
      environment: { ...environment, WEFTD_SOCKET: daemon.socketPath },
      input: configuration
    })
    deepEqual([exit, printed], [1, { code: 7 }])
  })
  test('a daemon that closes, that stays silent, or that talks of something else is named', async () => {
    for (const [answer, code, words] of [
      [() => undefined, 11, /closed the connection/],
      [() => new Promise<string>(() => {}), 11, /did not answer on .* within 50 ms/],
      [() => 'hello', 999, /sent an answer on .* that can.t be parsed/],
      [() => '{"v":2,"exit":0}', 999, /sent an answer on .* that can.t be parsed/]
    ] as const) {
      await using daemon = await listen(answer)
      const variables = { ...environment, WEFTD_SOCKET: daemon.socketPath, WEFTD_DEADLINE_MS: '50' }
      const { exit, printed } = await run({ environment: variables, input: configuration })
      deepEqual([exit, printed.code], [1, code])
      match(printed.msg, words)
    }
  })
})

describe('delegates', () => {
  const asking = (type: string, path: readonly string[]) => (request: CniRequest) =>
    request.did.length === 0
      ? JSON.stringify({
          v: 1,
          run: { id: 'ipam', type, path, env: { CNI_COMMAND: 'DEL' }, stdin: 'given', deadlineMs: 5000 }
        })
      : JSON.stringify({ v: 1, exit: 0, stdout: 'done' })

  async function delegateRuns(script: string) {
    let folder = ''
    await using daemon = await listen((request) => asking('third', ['/nonexistent', folder])(request))
    folder = join(daemon.folder, 'bin')
    await mkdir(folder)
    await writeFile(join(folder, 'third'), `#!/bin/sh\n${script}\n`)
    await chmod(join(folder, 'third'), 0o755)
    const host = new HostOnNode({
      environment: { ...environment, WEFTD_SOCKET: daemon.socketPath },
      input: configuration
    })
    equal(await main(host), 0)
    equal(host.output, 'done')
    return { did: daemon.requests[1]?.did, host, folder }
  }

  test('a delegate gets the environment with changes and its own input; its result goes back, its words to standard error', async () => {
    const { did, host } = await delegateRuns('echo "$CNI_COMMAND $TRACEPARENT $(cat)"; echo note >&2; exit 3')
    deepEqual(did, [{ kind: 'ended', id: 'ipam', exit: 3, stdout: 'DEL 00-malformed given\n', stderr: 'note\n' }])
    equal(host.error, 'note\n')
  })
  test('a delegate that is killed is reported as failed', async () => {
    const { did, folder } = await delegateRuns('kill -9 $$')
    deepEqual(did, [{ kind: 'failed', id: 'ipam', reason: `${folder}/third was killed by signal 9` }])
  })
  test('a delegate that is nowhere is reported with its name and the path', async () => {
    await using daemon = await listen(asking('absent', ['/a', '/b']))
    await run({ environment: { ...environment, WEFTD_SOCKET: daemon.socketPath }, input: configuration }).catch(
      () => {}
    )
    deepEqual(daemon.requests[1]?.did, [
      { kind: 'failed', id: 'ipam', reason: 'failed to find plugin "absent" in path [/a /b]' }
    ])
  })
  test('a daemon that asks without end is stopped', async () => {
    const again = { v: 1, run: { id: 'i', type: 'absent', path: [], env: {}, stdin: '', deadlineMs: 5 } }
    await using daemon = await listen(() => JSON.stringify(again))
    const { printed } = await run({
      environment: { ...environment, WEFTD_SOCKET: daemon.socketPath },
      input: configuration
    })
    equal(printed.code, 999)
    match(printed.msg, /more than 16 delegates/)
  })
})
