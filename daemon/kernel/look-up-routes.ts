// Asks the kernel for routes: how the host reaches an address, which entry of the tables it uses, and its policy rules.
import { formatIp, type Ip } from '../../ipam/address.ts'
import { toError } from '../base/error.ts'
import type { Kernel } from '../state/kernel.ts'
import type { Route } from '../state/object.ts'
import { decodeRoute } from './netlink/decode.ts'
import { findRoute, lookUpRoute } from './netlink/encode.ts'
import { KernelError } from './netlink/error.ts'
import type { Message } from './netlink/message.ts'
import type { RequestSocket } from './netlink/request-socket.ts'
import { dumpRules } from './netlink/rules.ts'
import { readSysctl } from './sysctl.ts'

export const routeLookups = (socket: RequestSocket): Pick<Kernel, 'routeTo' | 'routesTo' | 'usedRoutes' | 'rules'> => ({
  routeTo: async (ip) => {
    const [found] = await routesTo(socket, [ip])
    if (found instanceof Error) throw found
    return found
  },
  routesTo: (ips) => routesTo(socket, ips),
  usedRoutes: (ips, from) => usedRoutes(socket, ips, from),
  rules: (family) => dumpRules(socket, family)
})

const unreachable = new Set(['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL'])

async function routesTo(socket: RequestSocket, ips: readonly Ip[]): ReturnType<Kernel['routesTo']> {
  const [ip] = ips
  if (ip === undefined) return []
  const what = ips.length === 1 ? `the route to ${formatIp(ip)}` : `the routes to ${ips.length} addresses`
  const answers = await socket.askAll(ips.map(lookUpRoute), what)
  return answers.map((answer) => {
    const route = routeIn(answer, socket)
    if (route instanceof Error) return route
    if (route?.device === undefined) return undefined
    const { device, source, gateway, mtu } = route
    return {
      device,
      ...(source !== undefined && { source }),
      ...(gateway !== undefined && { gateway }),
      ...(mtu !== undefined && { mtu })
    }
  })
}

/**
 * The kernel also answers with an error for an unreachable, prohibit or blackhole route. Any other error (no memory, a
 * lost answer) is about this address alone, and says nothing of its route.
 */
function routeIn(answer: Message | KernelError, socket: RequestSocket): Route | Error | undefined {
  if (answer instanceof KernelError) return unreachable.has(answer.errnoName) ? undefined : answer
  try {
    return decodeRoute(answer, (index) => socket.nameOf(index), true)
  } catch (error) {
    return toError(error)
  }
}

/**
 * Whether a look-up as for a packet that came by this device failed by a route or rule. Else it may have been the
 * reverse path filter (EXDEV), a source that cannot be (EINVAL, as of a blackhole route), or IPv4 forwarding that is
 * off (EHOSTUNREACH); route.c, ip_route_input_slow().
 */
const isOfRoutes = ({ errnoName }: KernelError, device: string): boolean =>
  errnoName === 'EACCES' ||
  errnoName === 'ENETUNREACH' ||
  (errnoName === 'EHOSTUNREACH' && readSysctl(`net/ipv4/conf/${device}/forwarding`)?.value === '1')

async function usedRoutes(
  socket: RequestSocket,
  ips: readonly Ip[],
  from: Parameters<Kernel['usedRoutes']>[1]
): ReturnType<Kernel['usedRoutes']> {
  const what = `the routes to ${ips.length} addresses`
  const index = from && socket.indexOf(from.device)
  if (from === undefined || index === undefined) {
    const answers = await socket.askAll(
      ips.map((ip) => findRoute(ip)),
      what
    )
    return answers.map((answer) => routeIn(answer, socket))
  }
  const answers = await socket.askAll(
    ips.map((ip) => findRoute(ip, { index, source: from.source })),
    what
  )
  const isRefused = (answer: Message | KernelError | undefined) =>
    answer instanceof KernelError && !isOfRoutes(answer, from.device)
  const again = ips.filter((_, at) => isRefused(answers[at]))
  const own = again.length === 0 ? [] : [...(await usedRoutes(socket, again, undefined))]
  return answers.map((answer) => (isRefused(answer) ? own.shift() : routeIn(answer, socket)))
}
