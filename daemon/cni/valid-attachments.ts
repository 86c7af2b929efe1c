// Reads the attachments that the runtime lists as valid in a GC call.
import { CniError, cniCode } from '../../plugins/cni/error.ts'
import { descend, entries, type Field, FieldError, isAbsent, member, required, text } from '../../plugins/cni/field.ts'
import type { NetworkCall } from '../../plugins/cni/types.ts'
import type { Listed } from '../pod/gc.ts'

/** `cni.dev/valid-attachments`, or its older name; neither means that none is valid (cni.md 1.8). */
export function validAttachments(call: NetworkCall): readonly Listed[] {
  const root: Field = { path: '', value: call.configuration }
  const [newer, older] = [descend(root, 'cni.dev/valid-attachments'), descend(root, 'cni.dev/attachments')]
  const textOf = (of: Field, key: string) => required(text(member(of, key)), member(of, key), 'a string')
  try {
    return entries(isAbsent(newer) ? older : newer).map((each) => ({
      containerId: textOf(each, 'containerID'),
      ifname: textOf(each, 'ifname')
    }))
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
    throw new CniError(`could not parse ${error.path}`, {
      code: cniCode.decoding,
      details: error.message,
      cause: error
    })
  }
}
