// Requires that the file system of a state directory answers, before synchronous work there.
import { reasonOf, WeftError } from './error.ts'

/** `files` is ipam/read-file.ts's FileReader. Errors: STATE_UNWRITABLE. */
export async function requireAnswer(
  files: { readonly answers: (path: string) => Promise<void> },
  path: string
): Promise<void> {
  try {
    await files.answers(path)
  } catch (cause) {
    throw new WeftError(
      'STATE_UNWRITABLE',
      `${path} can't be used: ${reasonOf(cause)}`,
      'bring back the server of the file system it is on (findmnt names it), or configure a directory on a local one',
      { cause }
    )
  }
}
