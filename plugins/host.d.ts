// The primitives that plugins/host (Rust) provides to plugins/main.ts; unit tests implement them on Node
// (test/unit/plugins/host-on-node.ts).

/** The executable returns values, Node promises: callers await either. */
export type Eventually<T> = T | Promise<T>

/** All access to the system. The process ends when `main` resolves, with that number as exit status. */
export interface Host {
  /** The program's name as it was called (argv[0]), directory included. */
  readonly program: string
  /** The environment as execve(2) got it, `NAME=value` in order; invalid UTF-8 becomes U+FFFD. */
  readonly environment: readonly string[]
  /** All of standard input. Fails when it cannot be read, or holds more than `limitBytes`. */
  readInput(limitBytes: number): Eventually<Input>
  /** Throws when the stream cannot be written. */
  write(stream: 'output' | 'error', text: string): Eventually<void>
  /** Whether a regular file (or a symbolic link to one) exists and is accessible. */
  isFile(path: string): Eventually<boolean>
  /** Where a symbolic link leads; an empty text for what is no link or cannot be read. */
  readLink(path: string): Eventually<string>
  /** A regular file of at most `limitBytes`. */
  readText(path: string, limitBytes: number): Eventually<Input>
  /** Device and inode of what the path leads to, `dev:ino`; an empty text for what is not there. */
  identity(path: string): Eventually<string>
  /** Sends one line to a unix stream socket and returns the first line of the answer, both without their newline. */
  request(socketPath: string, line: string, deadlineMilliseconds: number): Eventually<Answer>
  /**
   * Runs a program (a path, not searched for) to its end, in its own process group, which is killed at the deadline.
   * `changes` override variables of this process. The child gets pipes only, so that no process it leaves behind keeps
   * our output open.
   */
  spawn(
    program: string,
    args: readonly string[],
    changes: Readonly<Record<string, string>>,
    input: string,
    deadlineMilliseconds: number
  ): Eventually<Ended>
}

export type Input =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'failed'; readonly reason: string }

/**
 * `missing`: no such file; `refused`: no listener; `denied`: permission; `deadline`; `closed`: before a whole line;
 * `reason` is the system's message.
 */
export type Answer =
  | { readonly kind: 'line'; readonly line: string }
  | {
      readonly kind: 'missing' | 'refused' | 'denied' | 'deadline' | 'closed' | 'failed'
      readonly reason: string
    }

/**
 * `status` is the exit status, or the signal's number when `killed`. Output until a deadline is kept. `failed`: it
 * could not be started.
 */
export type Ended =
  | {
      readonly kind: 'exited' | 'killed' | 'deadline'
      readonly status: number
      readonly stdout: string
      readonly stderr: string
    }
  | { readonly kind: 'failed'; readonly reason: string }
