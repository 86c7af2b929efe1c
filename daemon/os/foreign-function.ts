// C functions through koffi. Each call is checked first: a buffer that is shorter than what the callee reads or writes
// behind it would end the process.
import koffi from 'koffi'

/**
 * How many octets the callee touches behind a pointer: a number (the size of a structure), the name of the argument
 * that says it, `NAME * 64` where the argument counts structures of 64 octets, or, for value-result arguments such as
 * getsockname(2)'s, `*` and the name of the pointer to a uint32_t that says it.
 */
export type Extent = number | string

/**
 * A pointer argument of a prototype. `text`: a NUL-terminated string; `handle`: what another function of the library
 * returned.
 */
export type Pointer = { readonly name: string; readonly at: number; readonly extent: Extent | 'text' | 'handle' }

type AnyFunction = (...args: never[]) => unknown
type Check = (args: readonly unknown[]) => void

export type ForeignFunction<F extends AnyFunction> = F & {
  /**
   * The same in libuv's thread pool. Buffers must not change until `done` is called; errno() is the call's own inside
   * `done` only.
   */
  readonly async: (...args: [...Parameters<F>, (error: unknown, result: ReturnType<F>) => void]) => void
  readonly pointers: readonly Pointer[]
  /** How many arguments it takes. */
  readonly arity: number
}

/** A handle that a library returns: an address, `null` when there is none. */
export type Handle = bigint | null

/** Names a type of which only pointers are passed around, for prototypes. Once for each name. */
export const opaqueType = (name: string): unknown => koffi.opaque(name)

/**
 * A shared library; without a file name, what the process has loaded already, the C library among it. Errors: the
 * library is not there.
 */
export class Library {
  readonly #library: ReturnType<typeof koffi.load>

  constructor(file: string | null = null) {
    this.#library = koffi.load(file)
  }

  /**
   * The function of this prototype. Every pointer needs its extent, by the argument's name, except `const char *` and
   * opaque types. `long` stands for ssize_t, which koffi does not know. Errors: no such function; a pointer without an
   * extent; a number of a type that is not in SCALARS. Calls throw RangeError for a buffer that is too short and for a
   * number outside its type, TypeError for what is none.
   */
  declare<F extends AnyFunction>(
    prototype: string,
    extents: Readonly<Record<string, Extent>> = {}
  ): ForeignFunction<F> {
    const native = this.#library.func(prototype)
    const pointers = pointersOf(prototype, extents)
    const checks = [...pointers.map((pointer) => checkOf(pointer, prototype)), ...scalarChecks(prototype)]
    const checked =
      (call: (...args: unknown[]) => unknown): ((...args: unknown[]) => unknown) =>
      (...args) => {
        for (const check of checks) check(args)
        return call(...args)
      }
    const { length: arity } = argumentsOf(prototype)
    const all = { async: checked(keepingArguments(native.async)), pointers, arity }
    return Object.assign(checked(native), all) as unknown as ForeignFunction<F>
  }
}

/**
 * Holds the arguments until the call is done: koffi hands a buffer's address to the thread and keeps no reference, so a
 * buffer that nobody else holds could be collected while the kernel writes into it.
 */
const keepingArguments =
  (call: (...args: unknown[]) => unknown): ((...args: unknown[]) => unknown) =>
  (...args) => {
    const callback = args.pop() as (error: unknown, result: unknown) => void
    const inUse = new Set(args)
    return call(...args, (error: unknown, result: unknown) => {
      inUse.clear()
      callback(error, result)
    })
  }

/**
 * Where a buffer is, for a structure with a pointer in it; valid while the buffer is referenced. A buffer of
 * Buffer.alloc() from 4 kB or of allocUnsafeSlow() never moves.
 */
export const addressOf = (bytes: Uint8Array): bigint => koffi.address(bytes)

/** errno(3) of the last call, or, inside the callback of an asynchronous one, of that. */
export const errno = (): number => koffi.errno()
/** <errno.h>: numbers by name. */
export const ERRNO: Readonly<Record<string, number>> = koffi.os.errno

/** The names of a prototype's arguments, and which of them are pointers. */
function argumentsOf(prototype: string): readonly (readonly [name: string, type: string])[] {
  const list = /^[\w\s*]+?\w\(([^()]*)\)$/.exec(prototype)?.[1]
  if (list === undefined) throw new Error(`not a prototype: ${prototype}`)
  if (list === 'void') return []
  return list.split(',').map((argument) => {
    const [, type, name] = /^\s*([\w\s]+[\s*])(\w+)\s*$/.exec(argument) ?? []
    if (type === undefined || name === undefined) throw new Error(`${prototype}: ${argument} is no plain argument`)
    return [name, type.trim()]
  })
}

/** The least and the largest value of a type of argument; of 64 bits what a double holds exactly. */
const SCALARS: Readonly<Record<string, readonly [least: number, most: number]>> = {
  int: [-(2 ** 31), 2 ** 31 - 1],
  int32_t: [-(2 ** 31), 2 ** 31 - 1],
  uint32_t: [0, 2 ** 32 - 1],
  'unsigned int': [0, 2 ** 32 - 1],
  long: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  'unsigned long': [0, Number.MAX_SAFE_INTEGER],
  size_t: [0, Number.MAX_SAFE_INTEGER]
}

/** koffi takes the low bits of a number that is too large: close(2 ** 40) would close descriptor 0. */
function scalarChecks(prototype: string): readonly Check[] {
  return argumentsOf(prototype).flatMap(([name, type], at): readonly Check[] => {
    if (type.endsWith('*')) return []
    const range = SCALARS[type]
    if (range === undefined) throw new Error(`${prototype}: which numbers does ${type} hold?`)
    const [least, most] = range
    const what = `${/(\w+)\(/.exec(prototype)?.[1]}: ${name}`
    return [
      (args) => {
        const value = args[at]
        if (typeof value !== 'number') throw new TypeError(`${what} must be a number`)
        if (!Number.isInteger(value) || value < least || value > most)
          throw new RangeError(`${what} is ${value}, which is no ${type}`)
      }
    ]
  })
}

function pointersOf(prototype: string, extents: Readonly<Record<string, Extent>>): readonly Pointer[] {
  const all = argumentsOf(prototype)
  const pointers = all.flatMap(([name, type], at): readonly Pointer[] => {
    if (!type.endsWith('*')) return []
    const extent = extents[name] ?? (type === 'const char *' ? 'text' : isOpaque(type) ? 'handle' : undefined)
    if (extent === undefined) throw new Error(`${prototype}: how many octets are behind ${name}?`)
    return [{ name, at, extent }]
  })
  const unknown = Object.keys(extents).filter((name) => !pointers.some((pointer) => pointer.name === name))
  if (unknown.length > 0) throw new Error(`${prototype}: no pointer ${unknown.join(', ')}`)
  return pointers
}

/** Whether this is a pointer to a type that opaqueType() has named. */
const isOpaque = (pointer: string): boolean => {
  const { primitive, size } = koffi.type(pointer.slice(0, -1).trim())
  return primitive === 'Void' && size === 0 && !/\bvoid\b/.test(pointer)
}

/** Throws when what was passed for this pointer is not what the callee takes it for. */
function checkOf({ name, at, extent }: Pointer, prototype: string): Check {
  const names = argumentsOf(prototype).map(([argument]) => argument)
  const what = `${/(\w+)\(/.exec(prototype)?.[1]}: ${name}`
  if (extent === 'text')
    return (args) => {
      const value = args[at]
      if (typeof value !== 'string' || value.includes('\0')) throw new TypeError(`${what} must be a string without NUL`)
    }
  if (extent === 'handle')
    return (args) => {
      const value = args[at]
      if (typeof value !== 'bigint' || value === 0n) throw new TypeError(`${what} must be a handle`)
    }
  if (typeof extent === 'number') return (args) => checkLength(args[at], extent, what)
  const [, argument = extent.replace('*', ''), octets] = /^(\w+) \* (\d+)$/.exec(extent) ?? []
  const place = names.indexOf(argument)
  if (place < 0) throw new Error(`${prototype}: no argument ${extent}`)
  if (octets !== undefined) return (args) => checkLength(args[at], Number(args[place]) * Number(octets), what)
  if (!extent.startsWith('*')) return (args) => checkLength(args[at], args[place], what)
  return (args) => {
    const length = args[place]
    checkLength(length, 4, `${what}'s length`)
    const view = length as Uint8Array
    checkLength(args[at], new DataView(view.buffer, view.byteOffset).getUint32(0, true), what)
  }
}

function checkLength(value: unknown, length: unknown, what: string): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${what} must be a buffer`)
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0)
    throw new TypeError(`${what}: ${length} is not a length`)
  if (value.byteLength < length) throw new RangeError(`${what} has ${value.byteLength} of ${length} octets`)
}
