// Lets interfaces in pure rooms name an AbortSignal that they only hand on: tsconfig.pure.json has no Node types to take it from.
// biome-ignore lint/suspicious/noEmptyInterface: with Node's types it merges into theirs; alone it has nothing that pure code could call.
interface AbortSignal {}
