// Refuses a CHECK whose prevResult is of another container's namespace: it would compare the wrong container.
import { stat } from 'node:fs/promises'
import type { Attachment } from '../../plugins/attachment.ts'
import type { AttachmentResult } from '../attachment/result.ts'
import { WeftError } from '../base/error.ts'

/** Two paths may name one namespace (/run and /var/run). Errors: DIFFERENT with both paths. */
export async function refuseOtherSandbox(
  { because, ifname, sandbox = '' }: Pick<Attachment, 'because' | 'ifname' | 'sandbox'>,
  { interfaces }: Pick<AttachmentResult, 'interfaces'>
): Promise<void> {
  const reported = interfaces.flatMap((each) => (each.name === ifname && each.sandbox ? [each.sandbox] : []))
  const [first] = reported
  if (first === undefined || reported.includes(sandbox)) return
  const own = await fileAt(sandbox)
  if (own !== undefined && (await Promise.all(reported.map(fileAt))).includes(own)) return
  throw new WeftError(
    'DIFFERENT',
    `${because}: prevResult has ${ifname} in the sandbox ${first}, but CHECK was called for ${sandbox}`,
    'the runtime must pass CHECK the result of the ADD for the same sandbox'
  )
}

async function fileAt(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path)
    return `${dev}:${ino}`
  } catch {
    return undefined
  }
}
