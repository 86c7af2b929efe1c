// Whether a weftd is proven on its node: ready, and its probes reach every other node.
import { readAnswer } from '../api/answers.ts'
import type { PeersAnswer } from '../api/path-answers.ts'
import type { Asking } from './command.ts'
import { isLost, nameOf } from './peers.ts'
import { readStatus } from './status.ts'

/**
 * `waits`: the end of a sentence about weftd; empty once everything was asked. `lost`: peers that are not reached. A peer
 * that is never probed, since its backend is another one, does not count.
 */
export async function reached(
  ask: Asking['ask']
): Promise<{ readonly waits: string; readonly lost: readonly string[] }> {
  const { ready, conditions } = readStatus(await ask('status', []))
  const [first] = conditions
  if (!ready) return { waits: `is not ready: ${first?.sentence ?? 'it has no subnet yet'}`, lost: [] }
  const answer = readAnswer<PeersAnswer>(await ask('peers', []), { node: 'string', key: 'string', peers: 'array' })
  const ways = answer.peers.flatMap((peer) =>
    peer.ways.filter(({ way }) => way === 'pods').map((way) => ({ name: nameOf(peer), way }))
  )
  const unasked = ways.filter(({ way }) => way.verdict === 'not-asked')
  const pending = unasked.filter(({ way }) => way.text.startsWith('not asked yet'))
  if (pending.length > 0) return { waits: `has not asked ${pending.map(({ name }) => name).join(', ')} yet`, lost: [] }
  return { waits: '', lost: ways.filter(({ way }) => isLost(way)).map(({ name, way }) => `${name}: ${way.text}`) }
}
