// What a command of weftctl is: a question to the daemon, and how its answer reads to a person and to a shell.

export type Command = {
  /** For the list in --help. */
  readonly about: string
  /** What 0 and 1 mean as exit status. */
  readonly exits: string
  /** Lays the answer out. Errors: ANSWER_UNKNOWN. */
  read(answer: unknown): { readonly text: string; readonly exit: 0 | 1 }
}
