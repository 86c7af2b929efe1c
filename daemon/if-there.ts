// Files and directories that may be missing, which is no fault: one word for all who read such.

/** What `read` returns, or `undefined` where what it reads does not exist. Errors: all others of `read`. */
export function ifThere<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
