// What a prober knows of one way, as views and conditions ask for it.
import type { Judgement } from './judge.ts'

/** What is known of a way. */
export type Look = {
  readonly judgement: Judgement
  /** Of the first look that gave this verdict. */
  readonly sinceMsAgo: number
  readonly answeredMsAgo?: number
  readonly roundTripUs?: number
  /** The name of the error when the kernel did not send the last probe. */
  readonly refused?: string
  /** Why there is no socket. */
  readonly closed?: string
  /** The lease is so new that its node may be setting up. */
  readonly isNew: boolean
  /** Whether probes of the peer of both sizes came by this way lately, or must have. */
  readonly isHeardWhole: boolean
  /** Whether a probe of the peer has ever arrived, on any way. */
  readonly isHeard: boolean
  /** This node's own firewall drops answers that have arrived. */
  readonly dropsHere: boolean
}
