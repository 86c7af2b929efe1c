// `weftctl migrate`: moves this node from flanneld to weftd and back, or says what that would change.
import { dirname } from 'node:path'
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableJson, printableValue } from '../base/printable.ts'
import type { Facts } from '../migrate/facts.ts'
import type { Move } from '../migrate/move.ts'
import type { Plan } from '../migrate/plan.ts'
import type { Asking, Lasting } from './command.ts'
import { reached } from './proof.ts'

/** The last two are what the command for a whole cluster runs in the pods of nodes. */
const ACTIONS = ['plan', 'apply', 'rollback', 'apply-in-pod', 'rollback-in-pod'] as const

export const migrate: Lasting = {
  about:
    'move this node from flanneld to weftd while its pods run, or back; "kubectl weft migrate" moves a cluster, node by node. plan prints what would change and changes nothing; the others can be repeated after a fault (docs/migrate.md)',
  operands: [{ name: 'ACTION', oneOf: ACTIONS }],
  exits:
    '0 done, or nothing is missing for it; 1 something is missing (plan), or a step failed, and the last lines say how to go on or back',
  async run(asking) {
    const [action] = asking.operands
    if (asking.kubectl !== undefined) {
      const { migrateCluster } = await import('./migrate-cluster.ts')
      return migrateCluster(asking, asking.kubectl)
    }
    if (action === 'apply-in-pod' || action === 'rollback-in-pod') return partInPod(asking, action)
    const { planOf } = await import('../migrate/plan.ts')
    const deps = await depsFor(asking)
    const facts = await deps.look()
    const direction = action === 'plan' ? (facts.record === undefined ? 'apply' : 'rollback') : action
    const plan = planOf(direction === 'rollback' ? 'rollback' : 'apply', facts, asking.migrate, asking.migrate)
    if (action === 'plan') return print(asking, plan)
    if (action === 'rollback' && isBack(facts)) {
      asking.out('this node runs flanneld; there is nothing to take back\n')
      return 0
    }
    if (plan.faults.length > 0) {
      print({ ...asking, json: false }, plan)
      return 1
    }
    return carryOut(asking, plan, deps.move(facts))
  }
}

/** A rollback that was killed after its last step. */
const isBack = ({ record, flanneldPids, weftdAnswers }: Facts): boolean =>
  record === undefined && flanneldPids.length > 0 && !weftdAnswers

async function partInPod(asking: Asking, action: string): Promise<0> {
  const { applyInPod, rollBackInPod } = await import('../migrate/in-pod.ts')
  const { migrate: places, socket } = asking
  const deadlineMs = places.wait * 1000
  const node = { places, stateDir: dirname(socket), deadlineMs, weftdAnswers: () => answersOn(asking) }
  await (action === 'apply-in-pod' ? applyInPod(node) : rollBackInPod(node))
  return 0
}

async function depsFor(asking: Asking) {
  const { migrate: flags, socket } = asking
  const { look } = await import('../migrate/look.ts')
  const places = flags
  const weftdAnswers = () => answersOn(asking)
  return {
    look: () => look({ places, subnetFile: flags.subnetFile, weftdAnswers }),
    move(facts: Facts): Move {
      return {
        ...{ facts, places, weftdAnswers, subnetFile: flags.subnetFile, stateDir: dirname(socket) },
        daemons: {
          commands: flags,
          hasWeftdUnit: facts.hasWeftdUnit,
          deadlineMs: flags.wait * 1000,
          environment: asking.env
        },
        prove: () => proveWeftd(asking, flags.wait * 1000),
        begins: (name) => asking.out(`${name} …\n`)
      }
    }
  }
}

async function carryOut(asking: Asking, plan: Plan, move: Move): Promise<0 | 1> {
  const { applyMove, rollBack } = await import('../migrate/move.ts')
  const isApply = plan.direction === 'apply'
  try {
    await (isApply ? applyMove(move) : rollBack(move))
  } catch (error) {
    const cure = error instanceof WeftError ? `cure: ${error.cure}\n` : ''
    const again = `"weftctl migrate ${plan.direction}" continues here`
    const back = isApply ? '; "weftctl migrate rollback" goes back to flanneld' : ''
    asking.out(`stopped: ${printable(reasonOf(error))}\n${cure}${again}${back}\n`)
    return 1
  }
  asking.out(
    isApply ? 'this node runs Weft; "weftctl migrate rollback" goes back\n' : 'this node runs flanneld again\n'
  )
  return 0
}

function print({ json, out }: Pick<Asking, 'json' | 'out'>, plan: Plan): 0 | 1 {
  out(json ? `${printableJson(JSON.stringify(plan, null, 2))}\n` : planText(printableValue(plan) as Plan))
  return plan.faults.length > 0 ? 1 : 0
}

export function planText({ direction, found, steps, stays, gap, settings, faults }: Plan): string {
  const part = (heading: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : [`${heading}:`, ...lines.map((line) => `  ${line}`)]
  return [
    ...part('Found', found),
    ...part(
      `weftctl migrate ${direction} would`,
      steps.map(({ text }, at) => `${String(at + 1).padStart(2)}  ${text}`)
    ),
    ...part("weftd's settings", settings),
    ...part('Stays', stays),
    `Packets of pods that are lost: ${gap}`,
    ...part(
      'Missing, so nothing would be done',
      faults.flatMap(({ message, cure }) => [message, `cure: ${cure}`])
    ),
    ''
  ].join('\n')
}

async function answersOn({ ask }: Asking): Promise<boolean> {
  try {
    await ask('status', [])
    return true
  } catch (error) {
    // It answers, whatever it says.
    return !(error instanceof WeftError && error.code === 'DAEMON_UNREACHABLE')
  }
}

/** Milliseconds between two questions. */
const POLL = 200

/**
 * Until weftd is ready and every peer that is probed answers on the path of pods' packets. A peer that is never asked
 * (its backend is another one) does not count.
 */
async function proveWeftd({ ask, migrate: { ignoreLost }, out }: Asking, deadlineMs: number): Promise<void> {
  const look = async (): Promise<string | undefined> => {
    const { waits, lost } = await reached(ask).catch((error: unknown) => ({ waits: reasonOf(error), lost: [] }))
    if (waits !== '' || (lost.length > 0 && !ignoreLost)) return waits || `does not reach ${lost.join('; ')}`
    for (const each of lost) out(`not reached, and ignored: ${printable(each)}\n`)
    return undefined
  }
  const { untilNothing } = await import('../migrate/until.ts')
  await untilNothing(look, {
    ...{ deadlineMs, everyMs: POLL },
    late: (reason) =>
      new WeftError(
        'MIGRATE_UNPROVEN',
        `weftd runs, but after ${deadlineMs / 1000} s ${reason}`,
        'run "weftctl status" and "weftctl peers" for the cause; if those nodes were down before, use --ignore-lost'
      )
  })
}
