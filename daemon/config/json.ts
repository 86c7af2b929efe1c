// Types of parsed JSON, for configuration keys and backend data before validation.
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }
