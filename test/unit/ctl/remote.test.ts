// weftctl for another node: the kubectl commands it runs, how it prints the reply, and errors when kubectl fails.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { statusAnswer } from '../../../daemon/api/answers.ts'
import { kubectl } from '../../../daemon/ctl/kubectl.ts'
import { run } from '../../../daemon/ctl/run.ts'

const facts = { version: '1.2.3', startedAt: 0, name: 'n2', store: 'kubernetes', peers: 1, pods: 3, conditions: [] }
const answer = JSON.stringify(statusAnswer(facts))

type Reply = { readonly exit?: number | undefined; readonly stdout?: string; readonly stderr?: string }

/** `replies` by the first word that kubectl gets after its flags. */
async function weftctl(words: readonly string[], replies: Readonly<Record<string, Reply>>, isPlugin = true) {
  const asked: (readonly string[])[] = []
  const deadlines = new Set<number>()
  let [out, complaints] = ['', '']
  const exit = await run([...words, '--socket=/nonexistent/weftd.sock'], {
    ...{ env: {}, version: '1.2.3', isPlugin },
    kubectl: async (all, deadlineMs) => {
      asked.push(all)
      deadlines.add(deadlineMs)
      const of = ['exec', 'pods', 'pod'].find((word) => all.includes(word)) ?? ''
      return { exit: 0, stdout: '', stderr: '', ...replies[of] }
    },
    out(text) {
      out += text
    },
    complain(text) {
      complaints += text
    }
  })
  return { exit, out, complaints, asked, deadlines }
}

const there = { pods: { stdout: 'weft weft-x7k2p\n' } }

test('--node has the weft pod of that node asked, and its answer is laid out as if it were asked here', async () => {
  for (const isPlugin of [true, false]) {
    const ran = await weftctl(
      ['status', '--node=n2', '--context', 'prod'],
      { ...there, exec: { stdout: answer } },
      isPlugin
    )
    assert.match(ran.out, /^n2: ready \(weftd 1\.2\.3\)\n/)
    assert.deepEqual([ran.exit, ran.complaints], [0, ''])
    assert.deepEqual([...ran.deadlines], [15_000])
    const [pods = [], exec = []] = ran.asked
    assert.deepEqual(pods.slice(0, 3), ['--request-timeout=10s', '--context', 'prod'])
    assert.ok(pods.includes('spec.nodeName=n2,status.phase=Running'), pods.join(' '))
    assert.equal(exec.slice(3).join(' '), 'exec --namespace weft weft-x7k2p --container weftd -- weftctl status --json')
  }
})

test('an answer with exit status 1 is an answer, and --json prints it', async () => {
  const ran = await weftctl(['diff', '--node=n2', '--json'], {
    ...there,
    exec: { exit: 1, stdout: '{"changes":[{"do":"put","text":"+ x"}]}' }
  })
  assert.deepEqual(JSON.parse(ran.out), { changes: [{ do: 'put', text: '+ x' }] })
  assert.equal(ran.exit, 1)
})

test('kubectl weft why pod finds the node by itself', async () => {
  const why = {
    pod: 'shop/web-1',
    calls: [],
    attachments: [],
    blocking: [],
    near: [],
    rememberedSince: '2026-01-01T00:00:00Z'
  }
  const replies = { ...there, pod: { stdout: 'n3' }, exec: { stdout: JSON.stringify(why) } }
  const ran = await weftctl(['why', 'pod', 'shop/web-1'], replies)
  assert.match(ran.out, /^shop\/web-1: weftd has received no call/)
  assert.equal(ran.exit, 1)
  assert.deepEqual(ran.asked[0]?.slice(1, 6), ['get', 'pod', '--namespace', 'shop', 'web-1'])
  assert.ok(ran.asked[1]?.includes('spec.nodeName=n3,status.phase=Running'))
  assert.deepEqual((await weftctl(['why', 'pod', 'web-1'], replies)).asked[0]?.slice(1, 4), ['get', 'pod', 'web-1'])
})

test("kubectl's refusals, missing pods and the complaints of the weftctl there are reported with a cure", async () => {
  const denied = 'E1121 memcache.go: x\nError from server (Forbidden): pods is forbidden\n'
  for (const [words, replies, expected] of [
    [
      ['status', '--node=n2'],
      { pods: { exit: 1, stderr: denied } },
      /weft pod of node n2 failed: Error from server \(Forbidden\): pods is forbidden\ncure: /
    ],
    [['status', '--node=n9'], {}, /node "n9" has no running pod .*\ncure: check the name with "kubectl get nodes"/],
    [['status', '--node=n2'], { pods: { exit: undefined, stderr: 'spawn kubectl ENOENT' } }, /spawn kubectl ENOENT/],
    [
      ['status', '--node=n2'],
      {
        ...there,
        exec: {
          exit: 3,
          stderr: 'weftctl: weftd does not answer\ncure: start weftd\ncommand terminated with exit code 3\n'
        }
      },
      /weftctl: weftd does not answer; cure: start weftd\ncure: /
    ],
    [
      ['why', 'pod', 'a/b'],
      { pod: { exit: 1, stderr: 'Error from server (NotFound): pods "b" not found' } },
      /node of pod a\/b failed: .*NotFound/
    ],
    [['why', 'pod', 'a/b'], {}, /pod a\/b is not scheduled to a node yet.*\ncure: run "kubectl describe pod b"/]
  ] as const) {
    const ran = await weftctl(words, replies)
    assert.equal(ran.exit, 3)
    assert.match(ran.complaints, expected)
  }
})

test('kubectl weft without --node asks this machine, and says what is missing where no weftd is', async () => {
  const ran = await weftctl(['status'], {})
  assert.equal(ran.asked.length, 0)
  assert.match(ran.complaints, /does not answer on .*\ncure: select the node with --node/)
  assert.match((await weftctl(['status'], {}, false)).complaints, /cure: start weftd/)
})

test('kubectl itself: what it prints and its exit status, and an end by force when it does not come to one', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-kubectl-'))
  const { PATH } = process.env
  t.after(() => {
    process.env.PATH = PATH
    rmSync(folder, { recursive: true })
  })
  const script = '#!/bin/sh\n[ "$1" = hang ] && { echo asking >&2; exec sleep 600; }\necho out; echo "$*" >&2; exit 3\n'
  writeFileSync(join(folder, 'kubectl'), script, { mode: 0o755 })
  process.env.PATH = `${folder}:${PATH}`
  assert.deepEqual(await kubectl(['get', 'pods'], 60_000), { exit: 3, stdout: 'out\n', stderr: 'get pods\n' })
  const late = await kubectl(['hang'], 200)
  assert.equal(late.exit, undefined)
  assert.match(late.stderr, /kubectl did not end within 0\.2 s$/)
  process.env.PATH = folder
  rmSync(join(folder, 'kubectl'))
  assert.match((await kubectl([], 60_000)).stderr, /ENOENT/)
})

const end = (kind: string, name: string, address: string) => ({ kind, name, address })
const wayTo = (over: object) => ({
  from: end('pod', 'shop/a', '10.244.1.5'),
  to: end('node', 'n2', '10.244.2.7'),
  hops: [{ at: 'route', state: 'whole', text: 'fine' }],
  answeredUs: 100,
  ...over
})

test('why from pod to pod asks the node of the first by the address of the second, and that one for the way back', async () => {
  const asked: string[] = []
  let out = ''
  const fault = { at: 'firewall', state: 'wrong', text: 'dropped', cure: 'remove it' }
  const replies: readonly (readonly [RegExp, string])[] = [
    [/get pod .*a .*podIP|get pod --namespace shop b /, 'n2 10.244.2.7'],
    [/get pod --namespace shop a /, 'n1'],
    [/get pods .*nodeName=n1/, 'weft weft-1'],
    [/get pods .*nodeName=n2/, 'weft weft-2'],
    [/exec .* weft-1 /, JSON.stringify({ way: wayTo({}) })],
    [/exec .* weft-2 /, JSON.stringify({ way: wayTo({ hops: [fault], first: fault }) })]
  ]
  const exit = await run(['why', 'pod', 'shop/a', 'to', 'pod', 'shop/b'], {
    ...{ env: {}, version: '1.2.3', isPlugin: true },
    async kubectl(all) {
      const line = all.slice(1).join(' ')
      asked.push(line)
      return { exit: 0, stdout: replies.find(([words]) => words.test(line))?.[1] ?? '', stderr: '' }
    },
    out(text) {
      out += text
    },
    complain: (text) => assert.fail(text)
  })
  const questions = asked.flatMap((line) => line.split(' weftctl ')[1] ?? [])
  assert.deepEqual(questions, ['why pod shop/a to address 10.244.2.7 --json', 'why address 10.244.1.5 --json'])
  assert.match(
    out,
    /whole: an answer came after 0\.1 ms\n\nthe path back, as that node sees it:\n[\s\S]*first fault \(firewall\): dropped\ncure: remove it\n$/
  )
  assert.equal(exit, 1)
})

test('kubectl weft check asks every node for its row, and names those that do not answer', async () => {
  const nodes = ['n1', 'n2', 'n3']
  let out = ''
  const exit = await run(['check'], {
    ...{ env: {}, version: '1.2.3', isPlugin: true },
    async kubectl(all) {
      const line = all.join(' ')
      const node = /nodeName=(n\d)/.exec(line)?.[1] ?? / weft-(n\d) /.exec(line)?.[1]
      if (line.includes(' exec ')) {
        assert.match(line, /weftctl check n1,n2,n3 --json$/)
        if (node === 'n3') return { exit: 1, stdout: '', stderr: 'no route to host' }
        const cells = nodes.filter((each) => each !== node).map((each) => ({ key: each, node: each, state: 'whole' }))
        const rows = [{ key: node, node, source: 'tried', cells }]
        return { exit: 0, stdout: JSON.stringify({ node, key: node, nodes: 2, sampled: 2, rows }), stderr: '' }
      }
      return { exit: 0, stdout: node === undefined ? 'n2\nn1\nn3\nn1\n' : `weft weft-${node}`, stderr: '' }
    },
    out(text) {
      out += text
    },
    complain: (text) => assert.fail(text)
  })
  assert.match(
    out,
    /^tried from 2 nodes, each to the others \(3 of 3\)\n\nFROM +n1 +n2 +n3\nn1 +- +ok +ok\nn2 +ok +- +ok\n/
  )
  assert.match(out, /\nn3 was not asked: .*no route to host/)
  assert.equal(exit, 1)
})

test('kubectl weft peers asks every node once and merges what they say; those that do not answer are named', async () => {
  const way = (name: string, verdict: string, text = '') => ({
    ...{ way: name, family: 'ipv4', verdict, text, since: '2026-01-01T00:00:05.123Z' },
    ...(text && { cure: 'let it pass' })
  })
  const peer = (node: string, ...ways: object[]) => ({ key: node, node, publicIp: [], subnet: [], ways })
  const lost = way('pods', 'out-lost', 'UDP port 8472 is lost')
  const peersOf: Readonly<Record<string, readonly object[]>> = {
    n1: [peer('n2', lost, way('nodes', 'lost', 'no answer')), peer('n3', way('pods', 'whole'), way('plain', 'lost'))],
    n2: [peer('n1', way('pods', 'whole'), way('nodes', 'lost')), peer('n3', way('pods', 'not-asked'))]
  }
  const asked: string[] = []
  let replies: (node: string) => string = (node) => {
    if (peersOf[node] === undefined) throw new Error('no route to host')
    return JSON.stringify({ node, key: node, peers: peersOf[node] })
  }
  let pods = 'weft weft-n2 n2\nweft weft-n1 n1\nweft weft-n3 n3\nweft old-n1 n1\nweft weft-n1 n1\n'
  const peers = async (...words: string[]) => {
    let [out, complaints] = ['', '']
    const exit = await run(['peers', ...words], {
      ...{ env: {}, version: '1.2.3', isPlugin: true },
      async kubectl(all) {
        const node = /weft-(n\d) .* weftctl peers --json$/.exec(all.join(' '))?.[1]
        if (node === undefined) return { exit: 0, stdout: pods, stderr: '' }
        asked.push(node)
        try {
          return { exit: 0, stdout: replies(node), stderr: '' }
        } catch (error) {
          return { exit: 1, stdout: '', stderr: (error as Error).message }
        }
      },
      out(text) {
        out += text
      },
      complain(text) {
        complaints += text
      }
    })
    return { exit, out, complaints }
  }
  const { exit, out } = await peers()
  assert.deepEqual(asked.toSorted(), ['n1', 'n2', 'n3'])
  assert.deepEqual(
    out.split('\n').map((line) => line.split(/ {2,}/).join('|')),
    [
      'FROM|PEERS|WHOLE|NOT-ASKED|BROKEN',
      'n1|2|1|0|1',
      'n2|2|1|1|0',
      '',
      'FROM|TO|PROBE|FAMILY|VERDICT|SINCE',
      'n1|n2|pods|ipv4|out-lost|2026-01-01T00:00:05Z',
      'n1|n2|nodes|ipv4|lost|2026-01-01T00:00:05Z',
      '',
      'n1 to n2 (pods, ipv4): UDP port 8472 is lost. Cure: let it pass',
      'n1 to n2 (nodes, ipv4): no answer. Cure: let it pass',
      '',
      'n3 was not asked: asking pod weft/weft-n3 on node n3 failed: no route to host',
      ''
    ]
  )
  assert.equal(exit, 1)
  const json = JSON.parse((await peers('--json')).out)
  assert.deepEqual([json.views.length, json.views[0].broken[0].ways.length, json.unasked.length], [2, 2, 1])
  replies = (node) => JSON.stringify({ node, key: node, peers: [peer('n9', way('pods', 'whole'))] })
  assert.equal((await peers()).exit, 0)
  pods = ''
  const none = await peers()
  assert.match(none.complaints, /no running pod has the label/)
  assert.equal(none.exit, 3)
})
