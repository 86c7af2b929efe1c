// What follows from the answers to packets whose source address or port this node translates. Checksum offload on a tunnel
// can break those alone: a rule that matches by mark translates the outer packet, too, which keeps the mark
// (kubernetes#88986, flannel#1279); or all of UDP and TCP, while ICMP, whose checksum is never offloaded, passes
// (flannel#2152).

/** So many translated packets in a row must be lost. */
export const LOSSES = 3

/** An attempt: untranslated packets to the same port before and after the translated one. */
export type Attempt = { readonly before: boolean; readonly translated: boolean; readonly after: boolean }

/** `translated-lost`: those alone. `unknown`: the port is not answered at all, or the way failed meanwhile. */
export type TranslatedVerdict = 'whole' | 'translated-lost' | 'unknown'

/** From the last attempts, oldest first. */
export function judgeTranslated(attempts: readonly Attempt[]): TranslatedVerdict {
  if (attempts.at(-1)?.translated === true) return 'whole'
  const last = attempts.slice(-LOSSES)
  const isProof = ({ before, translated, after }: Attempt) => before && after && !translated
  return last.length === LOSSES && last.every(isProof) ? 'translated-lost' : 'unknown'
}

/** Nothing was answered: a firewall drops the port, or what is offloaded is broken for untranslated packets, too. */
export function areSilent(attempts: readonly Attempt[]): boolean {
  const last = attempts.slice(-LOSSES)
  const isSilent = ({ before, translated, after }: Attempt) => !before && !after && !translated
  return last.length === LOSSES && last.every(isSilent)
}
