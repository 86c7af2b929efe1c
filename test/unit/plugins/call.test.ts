// The order of checks and the rules of cni.md 1.4 and 1.5: which error a wrong call gets.
import { deepEqual, equal, match } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readCall, readEnvironment, versionForError } from '../../../plugins/call.ts'
import { CniError } from '../../../plugins/cni/error.ts'
import { supportedVersions, verbs } from '../../../plugins/cni/version.ts'

const container = { CNI_CONTAINERID: 'c1', CNI_NETNS: '/run/netns/c1', CNI_IFNAME: 'eth0', CNI_PATH: '/opt/cni/bin' }
const variablesFor = (verb: string, changes: Record<string, string> = {}) => ({
  CNI_COMMAND: verb,
  ...container,
  ...changes
})

const call = (variables: Record<string, string>, input: string) => readCall('weft', readEnvironment(variables), input)
const configuration = (changes: object = {}) =>
  JSON.stringify({ name: 'net1', cniVersion: '1.1.0', type: 'weft', ...changes })

function errorOf(run: () => unknown): CniError {
  try {
    run()
  } catch (error) {
    if (error instanceof CniError) return error
    throw error
  }
  throw new Error('it did not fail')
}

describe('required variables', () => {
  for (const [verb, missing] of [
    ['ADD', 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME'],
    ['CHECK', 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME'],
    ['DEL', 'CNI_CONTAINERID,CNI_IFNAME']
  ] as const) {
    test(`${verb} names all that are missing at once, in the order of the specification`, () => {
      const error = errorOf(() => readEnvironment({ CNI_COMMAND: verb }))
      equal(error.code, 4)
      equal(error.message, `required env variables [${missing}] missing`)
      match(error.details, /^container runtimes set them/)
    })
  }
  test('an empty variable is missing, and reported as set but empty', () => {
    const error = errorOf(() => readEnvironment(variablesFor('ADD', { CNI_NETNS: '' })))
    equal(error.message, 'required env variables [CNI_NETNS] missing')
    match(error.details, /^set, but empty: CNI_NETNS; container runtimes set them/)
  })
  test('without CNI_COMMAND that is what is missing', () => {
    equal(errorOf(() => readEnvironment({})).message, 'required env variables [CNI_COMMAND] missing')
  })
  test('GC, STATUS and VERSION need none', () => {
    for (const verb of ['GC', 'STATUS', 'VERSION']) equal(readEnvironment({ CNI_COMMAND: verb }).verb, verb)
  })
  test('a bad container id is reported before a missing namespace, a missing id before a bad interface name is not', () => {
    match(
      errorOf(() => readEnvironment(variablesFor('ADD', { CNI_CONTAINERID: '-', CNI_NETNS: '' }))).message,
      /containerID/
    )
    match(
      errorOf(() => readEnvironment(variablesFor('ADD', { CNI_CONTAINERID: '', CNI_IFNAME: 'a/b' }))).message,
      /interface name/
    )
  })
  test('values that the verb does not need are not judged', () => {
    equal(readEnvironment(variablesFor('VERSION', { CNI_CONTAINERID: '-', CNI_IFNAME: 'a/b' })).verb, 'VERSION')
    equal(readEnvironment(variablesFor('GC', { CNI_IFNAME: 'a/b' })).verb, 'GC')
  })
})

describe('container ids and interface names', () => {
  for (const id of ['-abc', 'a/b', 'a b', 'ä', '.a', '_a', 'a\n']) {
    test(`container id ${JSON.stringify(id)} is refused with code 4`, () => {
      const error = errorOf(() => readEnvironment(variablesFor('ADD', { CNI_CONTAINERID: id })))
      equal(error.code, 4)
      match(error.message, /invalid characters in containerID/)
      match(error.details, new RegExp(JSON.stringify(id).slice(1, -1).replaceAll('\\', '\\\\')))
    })
  }
  for (const id of ['a', '0_.-', 'f'.repeat(64), 'x'.repeat(300)]) {
    test(`container id ${id.slice(0, 20)} of ${id.length} characters is accepted`, () => {
      equal(readEnvironment(variablesFor('DEL', { CNI_CONTAINERID: id })).containerId, id)
    })
  }
  for (const name of ['a'.repeat(16), 'ä'.repeat(8), 'a/b', 'a:b', 'a b', 'a\u00a0b', 'a\u0085', '\u3000', '.', '..']) {
    test(`interface name ${JSON.stringify(name)} is refused with code 4`, () => {
      equal(errorOf(() => readEnvironment(variablesFor('ADD', { CNI_IFNAME: name }))).code, 4)
    })
  }
  for (const name of ['a'.repeat(15), `${'ä'.repeat(7)}b`, '...', 'eth0.1', '-']) {
    test(`interface name ${JSON.stringify(name)} is accepted`, () => {
      equal(readEnvironment(variablesFor('ADD', { CNI_IFNAME: name })).ifname, name)
    })
  }
})

describe('standard input', () => {
  for (const [input, code, what] of [
    ['', 6, /empty/],
    ['{', 6, /begins with "\{"/],
    ['{} x', 6, /JSON/],
    ['[]', 6, /object/],
    ['"x"', 6, /object/],
    ['7', 6, /object/],
    ['{"name":5}', 6, /name/],
    ['null', 7, /missing network name/],
    ['{}', 7, /missing network name; .* has no member "name", which must begin with an ASCII letter or digit/],
    ['{"name":""}', 7, /missing network name; .* has an empty "name": it must begin with an ASCII letter or digit/],
    ['{"name":null}', 7, /missing network name/],
    ['{"name":"a/b"}', 7, /"a\/b"/],
    ['{"name":"../x"}', 7, /"\.\.\/x"/],
    ['{"name":"-x"}', 7, /"-x"/]
  ] as const) {
    test(`${JSON.stringify(input)} is error ${code}`, () => {
      const error = errorOf(() => call(variablesFor('ADD'), input))
      equal(error.code, code)
      match(`${error.message}; ${error.details}`, what)
    })
  }
  test('keys count in any capitalisation, the last of several wins, null is absence', () => {
    const read = call(variablesFor('ADD'), '{"Name":"a","NAME":"b","name":null,"CNIVERSION":"0.4.0"}')
    equal(read.verb === 'ADD' && read.network, 'b')
    equal(read.verb === 'ADD' && read.version, '0.4.0')
  })
  test('it plays no part for VERSION', () => {
    deepEqual(call({ CNI_COMMAND: 'VERSION' }, '{{{'), { verb: 'VERSION', plugin: 'weft' })
  })
})

describe('verbs and versions', () => {
  test('an unknown verb is error 4 that names it, after standard input has been judged', () => {
    const error = errorOf(() => call(variablesFor('FOO'), configuration()))
    equal(error.code, 4)
    equal(error.message, 'unknown CNI_COMMAND: FOO')
    equal(errorOf(() => call({ CNI_COMMAND: 'FOO' }, '{')).code, 6)
    equal(errorOf(() => call({ CNI_COMMAND: 'add' }, '{}')).code, 7)
  })
  test('an unknown verb is reported before the version', () => {
    equal(errorOf(() => call({ CNI_COMMAND: 'FOO' }, configuration({ cniVersion: '9.9.9' }))).code, 4)
  })
  for (const version of supportedVersions) {
    for (const verb of verbs.filter((each) => each !== 'VERSION')) {
      const least = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0', ADD: '0.1.0', DEL: '0.1.0' }[verb]
      const isAllowed = supportedVersions.indexOf(version) >= supportedVersions.indexOf(least as typeof version)
      test(`${verb} in ${version} is ${isAllowed ? 'accepted' : 'error 1'}`, () => {
        const read = () => call(variablesFor(verb), configuration({ cniVersion: version }))
        if (isAllowed) equal(read().verb, verb)
        else {
          equal(errorOf(read).code, 1)
          equal(errorOf(read).message, `config version does not allow ${verb}`)
        }
      })
    }
  }
  for (const absent of [undefined, '', null]) {
    test(`cniVersion ${JSON.stringify(absent)} means 0.1.0`, () => {
      const read = call(variablesFor('ADD'), configuration({ cniVersion: absent }))
      equal(read.verb === 'ADD' && read.version, '0.1.0')
      equal(errorOf(() => call(variablesFor('CHECK'), configuration({ cniVersion: absent }))).code, 1)
    })
  }
  test('a version that is not supported is error 1 with the version and the whole list', () => {
    for (const verb of ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS']) {
      const error = errorOf(() => call(variablesFor(verb), configuration({ cniVersion: '9.9.9' })))
      equal(error.code, 1)
      equal(error.message, 'incompatible CNI versions')
      for (const each of ['9.9.9', ...supportedVersions]) match(error.details, new RegExp(each.replaceAll('.', '\\.')))
    }
  })
  test('a version of another type is error 6', () => {
    for (const verb of ['ADD', 'CHECK', 'STATUS']) {
      equal(errorOf(() => call(variablesFor(verb), configuration({ cniVersion: 1 }))).code, 6)
    }
  })
  test('a text that is no version is error 6 for the verbs that came later, error 1 for the others', () => {
    for (const written of ['latest', '1.1', '1.1.0.0', '1..0', '-1.0.0', '1.x.0']) {
      for (const verb of ['CHECK', 'GC', 'STATUS']) {
        equal(errorOf(() => call(variablesFor(verb), configuration({ cniVersion: written }))).code, 6)
      }
      equal(errorOf(() => call(variablesFor('ADD'), configuration({ cniVersion: written }))).code, 1)
    }
  })
})

describe('a whole call', () => {
  test('ADD carries what the variables and the configuration say', () => {
    const variables = variablesFor('ADD', { CNI_ARGS: 'IP=10.0.0.5', CNI_PATH: '/a::/b', CNI_NETNS_OVERRIDE: 'TRUE' })
    deepEqual(call(variables, configuration({ mtu: 1400 })), {
      verb: 'ADD',
      plugin: 'weft',
      network: 'net1',
      version: '1.1.0',
      configuration: { name: 'net1', cniVersion: '1.1.0', type: 'weft', mtu: 1400 },
      input: configuration({ mtu: 1400 }),
      containerId: 'c1',
      ifname: 'eth0',
      netns: '/run/netns/c1',
      args: 'IP=10.0.0.5',
      path: ['/a', '/b'],
      mayBeOwnNamespace: true
    })
  })
  test('DEL without a namespace has none', () => {
    const read = call(variablesFor('DEL', { CNI_NETNS: '' }), configuration())
    equal(read.verb === 'DEL' && 'netns' in read, false)
  })
  test('an error is printed in the version asked for, where that can be read', () => {
    equal(versionForError(configuration({ cniVersion: '0.3.1' })), '0.3.1')
    equal(versionForError(configuration({ cniVersion: '' })), '0.1.0')
    for (const unreadable of [
      '',
      '{',
      '[]',
      configuration({ cniVersion: 1 }),
      configuration({ cniVersion: '9.9.9' })
    ]) {
      equal(versionForError(unreadable), '1.1.0')
    }
  })
})
