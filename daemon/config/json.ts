// What JSON.parse can return, as a readonly type: configuration keys and backend data are of it until somebody has parsed them.
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }
