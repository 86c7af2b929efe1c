// Ends the process at once, whatever its threads wait for.
import { Library } from './foreign-function.ts'

const cExit = new Library().declare<(status: number) => void>('void _exit(int status)')

/**
 * _exit(2). Not process.exit(): it waits for the thread pool, in which a read may wait for a file system that does not
 * answer, and weftd could not be stopped. What has been written is written; nothing else may be pending.
 */
export const exitAtOnce = (status: number): void => cExit(status)
