// The part of AbortSignal that pure rooms use: tsconfig.pure.json has no Node types to take it from. With Node's types
// it merges into theirs.
interface AbortSignal {
  readonly aborted: boolean
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void
  removeEventListener(type: 'abort', listener: () => void): void
}
