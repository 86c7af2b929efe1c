// Which API server and which credentials: kubeconfigs as kubectl takes them, the environment of a pod, and errors that
// never show a secret.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Json, JsonObject } from '../../../daemon/config/json.ts'
import { targetOfKubeconfig, targetOfPod } from '../../../daemon/kube/config.ts'

const PATH = '/etc/weft/kubeconfig'
const config = (cluster: JsonObject, user: JsonObject, more: JsonObject = {}): Json => ({
  'current-context': 'here',
  contexts: [
    { name: 'elsewhere', context: { cluster: 'x', user: 'x' } },
    { name: 'here', context: { cluster: 'c', user: 'u' } }
  ],
  clusters: [{ name: 'c', cluster: { server: 'https://192.0.2.1:6443/', ...cluster } }],
  users: [{ name: 'u', user }],
  ...more
})

test('files beside the kubeconfig, data in it, and names are taken as kubectl takes them', () => {
  assert.deepEqual(
    targetOfKubeconfig(
      config(
        { 'certificate-authority': 'ca.crt', 'tls-server-name': 'kubernetes' },
        { 'client-certificate': '/pki/a.crt', 'client-key-data': btoa('KEY'), token: 'x', tokenFile: 'token' }
      ),
      PATH,
      undefined
    ),
    {
      server: 'https://192.0.2.1:6443',
      from: PATH,
      ca: { file: '/etc/weft/ca.crt' },
      cert: { file: '/pki/a.crt' },
      key: { text: 'KEY' },
      token: { file: '/etc/weft/token' },
      serverName: 'kubernetes',
      insecure: false
    }
  )
})

test('data wins over a file, --kube-api-url over the server, and a context needs no user', () => {
  const both = config({ 'certificate-authority': 'ca.crt', 'certificate-authority-data': btoa('CA') }, { token: 't' })
  const target = targetOfKubeconfig(both, PATH, 'https://[2001:db8::1]:6443/')
  assert.deepEqual(
    [target.ca, target.server, target.from],
    [{ text: 'CA' }, 'https://[2001:db8::1]:6443', '--kube-api-url']
  )
  const nobody = config(
    { 'insecure-skip-tls-verify': true },
    {},
    { contexts: [{ name: 'here', context: { cluster: 'c' } }] }
  )
  assert.deepEqual(targetOfKubeconfig(nobody, PATH, undefined), {
    server: 'https://192.0.2.1:6443',
    from: PATH,
    insecure: true
  })
})

const V1 = 'client.authentication.k8s.io/v1'

test('a credential plugin is taken with what it gets, and only where there is nothing else', () => {
  const exec = {
    ...{
      apiVersion: V1,
      command: './issue',
      args: ['--all'],
      env: [{ name: 'A', value: 'b' }],
      installHint: 'install it'
    },
    ...{ provideClusterInfo: true, interactiveMode: 'IfAvailable' }
  }
  const extensions = [{ name: 'client.authentication.k8s.io/exec', extension: { audience: 'x' } }]
  const taken = (user: JsonObject) =>
    targetOfKubeconfig(config({ extensions, 'tls-server-name': 'kubernetes' }, user), PATH, undefined).plugin
  assert.deepEqual(taken({ exec }), {
    ...{ apiVersion: V1, command: './issue', args: ['--all'], env: [['A', 'b']], installHint: 'install it' },
    cluster: {
      ...{ server: 'https://192.0.2.1:6443/', 'tls-server-name': 'kubernetes', config: { audience: 'x' } }
    },
    ...{ folder: '/etc/weft/.', from: `--kubeconfig-file ${PATH}` }
  })
  assert.equal(taken({ exec, token: 'x' }), undefined)
})

test('a server without a scheme is HOST:PORT as for client-go, with TLS where an authority is configured', () => {
  const server = (cluster: JsonObject) => targetOfKubeconfig(config(cluster, {}), PATH, undefined).server
  assert.equal(server({ server: '192.0.2.1:8080' }), 'http://192.0.2.1:8080')
  assert.equal(server({ server: '[2001:db8::1]:6443', 'certificate-authority': 'ca' }), 'https://[2001:db8::1]:6443')
  assert.equal(server({ server: 'api:6443/', 'insecure-skip-tls-verify': true }), 'https://api:6443')
  assert.equal(targetOfPod({}, 'api:8080').server, 'http://api:8080')
  const pod = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' }
  assert.equal(targetOfPod(pod, 'api:6443').server, 'https://api:6443')
})

for (const [what, wrong, message, cure] of [
  ['a list', [], /the whole file is not a mapping/, /kubectl config view/],
  ['no context', {}, /current-context is missing/, /use-context/],
  ['an empty context', { 'current-context': '' }, /current-context is empty/, /use-context/],
  ['a strange context', config({}, {}, { 'current-context': 'z' }), /contexts has no entry "z"/, /correct the name/],
  ['no such cluster', config({}, {}, { clusters: [] }), /clusters has no entry "c"/, /correct the name/],
  ['no such user', config({}, {}, { users: null }), /users has no entry "u"/, /correct the name/],
  ['an empty server', config({ server: '' }, {}), /clusters\[c\] has the server ""/, /https:/],
  ['a server that is none', config({ server: 'x' }, {}), /clusters\[c\] has the server "x"/, /https:/],
  ['exec of no version', config({}, { exec: { command: 'aws' } }), /users\[u\]\.exec\.apiVersion is null/, /v1beta1/],
  ['exec without a command', config({}, { exec: { apiVersion: V1 } }), /users\[u\]\.exec has no command/, /name/],
  [
    'exec at a terminal',
    config({}, { exec: { command: 'x', apiVersion: V1, interactiveMode: 'Always' } }),
    /interactiveMode is Always, but weftd has no terminal/,
    /Never/
  ],
  [
    'exec over plain HTTP',
    config({ server: 'http://192.0.2.1:8080' }, { exec: { command: 'x', apiVersion: V1 } }),
    /has a token, which would be sent unencrypted/,
    /use https:/
  ],
  ['a provider', config({}, { 'auth-provider': { name: 'gcp' } }), /uses auth-provider/, /has removed/],
  ['a password', config({}, { username: 'me', password: 'SECRET' }), /uses username/, /has removed/],
  ['somebody else', config({}, { as: 'root' }), /uses as/, /does not impersonate/],
  ['half a certificate', config({}, { 'client-key-data': 'SECRET' }), /client-key without client-certificate/, /both/],
  ['no base64', config({ 'certificate-authority-data': 'SECRET!' }, {}), /authority-data is not base64/, /--raw/],
  ['a number', config({}, { token: 7 }), /users\[u\]\.token is not a string/, /quotes/],
  [
    'a token in the clear',
    config({ server: 'http://192.0.2.1:8080' }, { token: 'SECRET' }),
    /kubeconfig: clusters\[c\]\.server is http:\/\/192\.0\.2\.1:8080, and users\[u\] has a token/,
    /use https:/
  ],
  ['a proxy', config({ 'proxy-url': 'http://p' }, {}), /proxy-url/, /without a proxy/]
] as const)
  test(`a kubeconfig with ${what} is refused with the place and a cure`, () => {
    assert.throws(
      () => targetOfKubeconfig(wrong as Json, PATH, undefined),
      (error: { code: string; message: string; cure: string }) => {
        assert.equal(error.code, 'OPTION_INVALID')
        assert.match(error.message, message)
        assert.ok(error.message.includes(PATH))
        assert.match(error.cure, cure)
        assert.doesNotMatch(`${error.message} ${error.cure}`, /SECRET/)
        return true
      }
    )
  })

test('a pod finds the API server by its environment and its service account’s files', () => {
  const pod = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' }
  const folder = '/var/run/secrets/kubernetes.io/serviceaccount'
  const expected = {
    server: 'https://10.96.0.1:443',
    from: 'the environment of this pod',
    ca: { file: `${folder}/ca.crt` },
    token: { file: `${folder}/token` },
    insecure: false
  }
  assert.deepEqual(targetOfPod(pod, undefined), expected)
  assert.equal(targetOfPod({ ...pod, KUBERNETES_SERVICE_HOST: 'fd00::1' }, undefined).server, 'https://[fd00::1]:443')
  assert.deepEqual(targetOfPod(pod, 'https://api.example:6443'), {
    ...expected,
    server: 'https://api.example:6443',
    from: '--kube-api-url'
  })
})

test('a token goes over no connection that anybody can read, and a URL alone needs no credentials', () => {
  const pod = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' }
  assert.equal(targetOfPod(pod, 'http://127.0.0.1:8080').token, undefined)
  assert.deepEqual(targetOfPod({}, 'http://127.0.0.1:8080/'), {
    server: 'http://127.0.0.1:8080',
    from: '--kube-api-url',
    insecure: false
  })
  assert.throws(() => targetOfPod({}, undefined), { code: 'OPTION_INVALID', message: /names no API server/ })
})

test('a token goes over http to this host itself and to no other, wherever the URL is from', () => {
  const server = 'http://192.0.2.1:8080'
  for (const own of ['http://127.0.0.1:8080', 'http://[::1]:8080', 'http://localhost:8080'])
    assert.deepEqual(targetOfKubeconfig(config({ server: own }, { token: 't' }), PATH, undefined).token, { text: 't' })
  for (const url of [server, 'http://api.example.org', 'http://[2001:db8::1]'])
    assert.throws(() => targetOfKubeconfig(config({}, { tokenFile: 'token' }), PATH, url), {
      code: 'OPTION_INVALID',
      message: new RegExp(`--kube-api-url is ${url.replaceAll('[', '\\[')}`)
    })
  assert.equal(targetOfKubeconfig(config({ server }, {}), PATH, undefined).server, server)
})
