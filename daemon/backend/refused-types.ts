// Types of flannel's backends that Weft will not have, with the reason and what to use in their place.

type Refusal = { readonly why: string; readonly instead: string }

const cloud = (name: string): Refusal => ({
  why: `it writes routes with the API and the credentials of ${name}, which Weft does not speak`,
  instead: 'set Backend.Type to vxlan, which works in every cloud network'
})

/** By the name in `Backend.Type`, in lower case. */
export const REFUSED_TYPES: Readonly<Record<string, Refusal>> = {
  ipsec: {
    why: 'it needs the IKE daemon of strongSwan, run and configured by flanneld',
    instead: 'set Backend.Type to vxlan over an encrypted underlay, or to another type that encrypts'
  },
  'tencent-vpc': cloud('Tencent Cloud'),
  'aws-vpc': cloud('Amazon Web Services'),
  'ali-vpc': cloud('Alibaba Cloud'),
  gce: cloud('Google Cloud')
}
