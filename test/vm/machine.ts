// A virtual machine with Debian's kernel, under QEMU without KVM, whose files are those of this machine: what it writes
// stays in its memory. Commands go in by a virtual serial port.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PidNamespace } from '../lab/pid-namespace.ts'
import { Background, until } from '../lab/run.ts'

/** What the guest's shell sends behind a command's output, before its exit status: ASCII's record separator. */
const RECORD_SEPARATOR = '\x1e'
const MEMORY = '2G'
/**
 * All that QEMU can emulate, without memory protection keys: with them V8 changes the rights of its code pages by
 * WRPKRU, and Node died of SIGSEGV in one of some eighty starts.
 */
const CPU = 'max,-pku'
const repository = fileURLToPath(new URL('../..', import.meta.url))

export interface Answer {
  readonly code: number
  readonly output: string
}

/** What scripts/vm-parts has made; `undefined` where it can't be had. */
export function vmParts(): string | undefined {
  const directory = join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'vm')
  return existsSync(join(directory, 'versions')) ? directory : undefined
}

const virtiofsd = (): string =>
  ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd'].find((path) => existsSync(path)) ?? 'virtiofsd'

/** Whether a process accepts connections; the file exists a moment before. Flags: __SO_ACCEPTCON, <linux/net.h>. */
const isListening = (path: string): boolean =>
  readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.split(/ +/)[3] === '00010000')

export class Machine implements AsyncDisposable {
  readonly #processes: PidNamespace
  readonly #directory: string
  readonly #port: Socket
  #received = ''

  private constructor(processes: PidNamespace, directory: string, port: Socket) {
    this.#processes = processes
    this.#directory = directory
    this.#port = port
    port.setEncoding('utf8').on('data', (text: string) => {
      this.#received += text
    })
  }

  /** Boots, which takes half a minute, and waits until commands are served. */
  static async boot(parts: string): Promise<Machine> {
    const directory = mkdtempSync(join(tmpdir(), 'weft-vm-'))
    const processes = new PidNamespace()
    const end = async () => {
      processes.end()
      await processes.ended
      rmSync(directory, { recursive: true, force: true })
    }
    const start = (name: string, file: string, args: readonly string[]) =>
      new Background(name, file, args, { logPath: join(directory, `${name}.log`), spawn: processes.spawn })
    try {
      const files = join(directory, 'files.sock')
      start('virtiofsd', virtiofsd(), [
        `--socket-path=${files}`,
        ...['-o', 'source=/', '-o', 'sandbox=chroot', '-o', 'no_posix_lock', '-o', 'cache=always']
      ])
      await until(() => isListening(files), { what: 'virtiofsd to listen' })
      const commands = join(directory, 'commands.sock')
      const qemu = start('qemu', 'qemu-system-x86_64', [
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
        ...['-machine', 'q35,memory-backend=memory', '-accel', 'tcg', '-cpu', CPU, '-smp', '2', '-m', MEMORY],
        ...['-object', `memory-backend-memfd,id=memory,size=${MEMORY},share=on`],
        ...['-kernel', join(parts, 'vmlinuz'), '-initrd', join(parts, 'initramfs')],
        ...[
          '-append',
          `console=ttyS0 quiet panic=-1 mitigations=off weft.tree=${repository} weft.modules=${join(parts, 'modules/modules', release(parts))}`
        ],
        ...['-serial', `file:${join(directory, 'console.log')}`],
        ...['-chardev', `socket,id=files,path=${files}`, '-device', 'vhost-user-fs-pci,chardev=files,tag=host'],
        ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=commands,path=${commands},server=on,wait=off`],
        ...['-device', 'virtserialport,chardev=commands,name=weft']
      ])
      const qemuUntil = async (is: () => boolean, what: string) => {
        await until(() => is() || qemu.ended !== undefined, { what, deadlineMs: 300_000, everyMs: 50 })
        if (qemu.ended) throw new Error(`QEMU ended: ${qemu.text()}`)
      }
      await qemuUntil(() => isListening(commands), 'QEMU to start')
      const machine = new Machine(processes, directory, connect(commands))
      await qemuUntil(() => machine.#received.startsWith('ready\n'), 'the virtual machine to boot')
      machine.#received = ''
      return machine
    } catch (cause) {
      const console = join(directory, 'console.log')
      const text = existsSync(console) ? readFileSync(console, 'utf8').slice(-3000) : ''
      await end()
      throw new Error(`the virtual machine did not boot:\n${text}`, { cause })
    }
  }

  /** Runs one line of sh in the guest, as root. */
  async sh(line: string, deadlineMs = 300_000): Promise<Answer> {
    this.#port.write(`${line.replaceAll('\n', '; ')}\n`)
    const answer = await until(() => new RegExp(`^(.*)${RECORD_SEPARATOR}(\\d+)\\n$`, 's').exec(this.#received), {
      what: `the guest to run: ${line}`,
      deadlineMs,
      everyMs: 50
    }).catch((cause: unknown) => {
      throw new Error(`${line}: no end; printed so far:\n${this.#received.slice(-3000)}`, { cause })
    })
    this.#received = ''
    return { code: Number(answer[2]), output: String(answer[1]) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#port.destroy()
    this.#processes.end()
    await this.#processes.ended
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

const release = (parts: string): string => readFileSync(join(parts, 'release'), 'utf8').trim()
