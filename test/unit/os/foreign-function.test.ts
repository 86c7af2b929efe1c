// Foreign functions: a wrong argument, which would end the process, is an Error before the call.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { errno, type ForeignFunction, Library, type Pointer } from '../../../daemon/os/foreign-function.ts'
import { prototypes } from '../../../daemon/os/libc.ts'
import { loadLibnftables } from '../../../daemon/os/libnftables.ts'

type Any = ForeignFunction<(...args: never[]) => unknown>

const ROOM = 64
/** A descriptor that is none: a call that is not stopped fails with EBADF. */
const NO_DESCRIPTOR = -1

/** Arguments that pass all checks: every number that is a length is ROOM, every buffer has as many octets. */
function goodArguments({ arity, pointers }: Any): readonly unknown[] {
  const args: unknown[] = Array.from({ length: arity }, (_, at) => (at === 0 ? NO_DESCRIPTOR : ROOM))
  for (const { at, extent } of pointers) {
    const value = Buffer.alloc(ROOM)
    value.writeUInt32LE(ROOM)
    args[at] = extent === 'text' ? 'list tables' : extent === 'handle' ? 1n : value
  }
  return args
}

const wrong = (extent: Pointer['extent']): readonly unknown[] => {
  if (extent === 'text') return [undefined, null, 7, Buffer.alloc(ROOM), 'with\0NUL']
  if (extent === 'handle') return [undefined, null, 0n, 1, {}, Buffer.alloc(ROOM)]
  const short = typeof extent === 'number' ? extent - 1 : ROOM - 1
  return [undefined, null, 1n, 'text', [], Buffer.alloc(short), new Uint8Array(short), Buffer.alloc(ROOM).buffer]
}

function refusesAll(name: string, call: Any): void {
  for (const { at, extent, name: pointer } of call.pointers) {
    for (const value of wrong(extent)) {
      const args = goodArguments(call).with(at, value) as never[]
      const what = `${name}: ${pointer} = ${String(value)}`
      assert.throws(() => call(...args), Error, what)
      assert.throws(() => call.async(...([...args, () => assert.fail(what)] as never)), Error, what)
    }
  }
}

for (const [name, call] of Object.entries(prototypes)) {
  test(`${name} of the C library refuses buffers that are too short or none`, () => refusesAll(name, call as never))
}

const FILE = 'libnftables.so.1'

function isInstalled(file: string): boolean {
  try {
    return new Library(file) !== undefined
  } catch {
    return false
  }
}

test('libnftables refuses what is no context of it and what is no command', {
  skip: isInstalled(FILE) ? false : `needs ${FILE}`
}, () => {
  const functions = loadLibnftables(FILE)
  for (const [name, call] of Object.entries(functions)) refusesAll(name, call as never)
})

test('invalid lengths are refused too', () => {
  for (const length of [-1, 1.5, Number.NaN, 2 ** 53, 1n, '4', undefined])
    assert.throws(() => prototypes.recv(NO_DESCRIPTOR, Buffer.alloc(8), length as number, 0), TypeError)
})

test('a number that its type does not hold is refused: koffi would take its low bits', () => {
  for (const number of [2 ** 40, 2 ** 31, -(2 ** 31) - 1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => prototypes.close(number), RangeError, String(number))
  for (const wrong of [undefined, null, '1', 1n, {}])
    assert.throws(() => prototypes.close(wrong as never), TypeError, String(wrong))
  assert.throws(() => prototypes.ioctl(NO_DESCRIPTOR, -1), RangeError)
  assert.throws(
    () => new Library().declare('int lseek(int fd, int64_t offset, int whence)'),
    /which numbers does int64_t hold/
  )
})

test('a call with good arguments reaches the kernel, whose errno is available', () => {
  assert.equal(prototypes.recv(NO_DESCRIPTOR, Buffer.alloc(8), 8, 0), -1)
  assert.equal(errno(), 9)
  const into = Buffer.alloc(0)
  assert.equal(prototypes.send(NO_DESCRIPTOR, into, 0, 0), -1, 'no octets are a buffer too')
})

test('a prototype is refused when a pointer has no extent, or an extent no pointer', () => {
  const library = new Library()
  const read = 'long read(int fd, void *bytes, size_t length)'
  assert.throws(() => library.declare(read), /how many octets are behind bytes/)
  assert.throws(() => library.declare(read, { bytes: 'size' }), /no argument size/)
  assert.throws(() => library.declare(read, { bytes: 'length', more: 4 }), /no pointer more/)
  assert.throws(() => library.declare('int pipe(int fds[2])'), Error)
  assert.throws(() => library.declare('int wait(int *status)'), /how many octets are behind status/)
  assert.throws(() => library.declare('char *getcwd(char *buf, size_t size)'), /how many octets are behind buf/)
  assert.throws(() => library.declare('read'), /read/)
  assert.deepEqual(library.declare(read, { bytes: 'length' }).pointers, [{ name: 'bytes', at: 1, extent: 'length' }])
})

test('a buffer in use by an asynchronous call is not collected before the call ends', () => {
  const libc = JSON.stringify(new URL('../../../daemon/os/libc.ts', import.meta.url).href)
  const script = `
    const { NETLINK_ROUTE, netlinkSocket, prototypes, setReceiveTimeout } = await import(${libc})
    const fd = netlinkSocket(NETLINK_ROUTE)
    setReceiveTimeout(fd, 1)
    const { promise, resolve } = Promise.withResolvers()
    const start = () => {
      const buffer = new Uint8Array(100_000)
      prototypes.recv.async(fd, buffer, buffer.length, 0, () => resolve())
      return new WeakRef(buffer)
    }
    const buffer = start()
    for (let times = 0; times < 5; times++) {
      await new Promise((next) => setTimeout(next, 20))
      gc()
    }
    console.log(buffer.deref() === undefined ? 'collected' : 'kept')
    await promise`
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], {
    encoding: 'utf8'
  })
  assert.equal(stdout.trim(), 'kept', stderr)
})
