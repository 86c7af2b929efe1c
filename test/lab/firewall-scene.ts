// A network namespace for tests of code that works in its own process's namespace: the test file starts itself again
// inside one.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { type Finished, type RunOptions, run } from './run.ts'

const variable = 'WEFT_LAB_OWN_NAMESPACE'

/**
 * Runs the calling test file again in a new network and mount namespace, reporting to the same runner, unless it is
 * there already. Does not return outside.
 */
export function ensureOwnNamespace(file: string): void {
  if (process.env[variable] !== undefined) return
  const args = ['--net', '--mount', '--propagation', 'private', '--', process.execPath, ...process.execArgv, file]
  const inside = spawnSync('unshare', args, { stdio: 'inherit', env: { ...process.env, [variable]: '1' } })
  process.exit(inside.status ?? 1)
}

/** Another namespace, joined to this one by a veth pair: `name` here, `eth0` there. */
export class Neighbour implements Disposable {
  readonly #keeper: ChildProcess

  private constructor(keeper: ChildProcess) {
    this.#keeper = keeper
  }

  static async join(
    name: string,
    addresses: readonly { readonly here: string; readonly there: string }[]
  ): Promise<Neighbour> {
    const keeper = spawn('unshare', ['--net', '--', 'sh', '-c', 'ip link set lo up; echo ready; exec sleep infinity'], {
      stdio: ['ignore', 'pipe', 'ignore']
    })
    await new Promise((resolve) => keeper.stdout.once('data', resolve))
    keeper.stdout.destroy()
    keeper.unref()
    const there = new Neighbour(keeper)
    await run('ip', ['link', 'add', 'name', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(keeper.pid)])
    for (const address of addresses) {
      await run('ip', ['address', 'add', address.here, 'dev', name, ...(address.here.includes(':') ? ['nodad'] : [])])
      await there.exec('ip', [
        'address',
        'add',
        address.there,
        'dev',
        'eth0',
        ...(address.there.includes(':') ? ['nodad'] : [])
      ])
    }
    await run('ip', ['link', 'set', name, 'up'])
    await there.exec('ip', ['link', 'set', 'eth0', 'up'])
    for (const address of addresses) {
      const [gateway = ''] = address.here.split('/')
      await there.exec('ip', [gateway.includes(':') ? '-6' : '-4', 'route', 'add', 'default', 'via', gateway])
    }
    return there
  }

  exec(command: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return run('nsenter', ['-t', String(this.#keeper.pid), '-n', '--', command, ...args], options)
  }

  /** Whether one echo request to `address` is answered within a second. */
  async reaches(address: string): Promise<boolean> {
    return (await this.exec('ping', ['-c', '1', '-W', '1', address], { check: false })).code === 0
  }

  [Symbol.dispose](): void {
    this.#keeper.kill('SIGKILL')
  }
}
