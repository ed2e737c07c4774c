/** The common tasks, as documents that run. The first four are the very operations, and variables, of integrators on ION. */

export interface Example {
  readonly title: string;
  readonly purpose: string;
  readonly query: string;
  readonly variables: string;
}

export interface Chapter {
  readonly title: string;
  readonly examples: readonly Example[];
}

const OWN_RESOURCES = "WEBHOOK_";

/** The resource that the examples are about: RUNS, or another of the application's, or else one of Clarion's own. */
export function exampleResource(resources: readonly string[]): string {
  if (resources.includes("RUNS")) return "RUNS";
  return resources.find((name) => !name.startsWith(OWN_RESOURCES)) ?? resources[0] ?? "WEBHOOK_RECEIVERS";
}

export function chapters(resource: string): readonly Chapter[] {
  // RUNS have a status; of another resource's columns nothing is known.
  const condition = resource === "RUNS" ? 'object.status == "in_progress" && oldObject.status != "in_progress"' : "size(changed) > 0";
  return [
    { title: "Register and subscribe", examples: registering(resource) },
    { title: "Watch and repeat", examples: [...WATCHING, ledger(resource)] },
    { title: "Only when", examples: conditional(resource, condition) },
    { title: "Keys, secrets and addresses", examples: KEEPING },
  ];
}

/** A remark that GraphiQL takes the tab's title from: it looks for `query` and a name, in lines that do not begin with `#`. */
function titled(name: string): string {
  return ` # query ${name}, without a name as integrators of ION write it\n`;
}

function registering(resource: string): readonly Example[] {
  return [
    {
      title: "Create a receiver",
      purpose: "Name and URL are enough. The secret is shown in clear this once.",
      query: `mutation CreateWebhookReceiver($input: CreateWebhookReceiverInput!) {
  createWebhookReceiver(input: $input) {
    webhookReceiver {
      id name description webhookUri sharedSecret contentType expectedResponseCode
      active subscriptions { resource action id } headers { key value id }
    }
  }
}`,
      variables: `{"input": {"name": "Our example server", "webhookUri": "https://whoknows.where.this.leads"}}`,
    },
    {
      title: "Subscribe it",
      purpose: "Take the receiver's id from the answer before.",
      query: `mutation CreateWebhookSubscription($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) {
    webhookSubscription { resource action id active receiverId events { id status } }
  }
}`,
      variables: `{"input": {"receiverId": 1, "resource": "${resource}", "action": "CREATE"}}`,
    },
    {
      title: "List receivers",
      purpose: "Secrets are masked, unless you hold secrets:reveal; then it is recorded.",
      query: `${titled("WebhookReceivers")}{ webhookReceivers { edges { node { sharedSecret id webhookUri _etag name } } } }`,
      variables: "",
    },
    {
      title: "List subscriptions",
      purpose: "With who made them, and their receivers.",
      query: `${titled("WebhookSubscriptions")}{ webhookSubscriptions { edges { node {
    id action resource createdBy { id name } receiver { id description name webhookUri } } } } }`,
      variables: "",
    },
  ];
}

const WATCHING: readonly Example[] = [
  {
    title: "Send a test event",
    purpose: "Signed, by the way that all events take; answers with the attempt.",
    query: `mutation TestReceiver($id: ID!) {
  testWebhookReceiver(id: $id) {
    webhookEvent { id status }
    attempt { outcome statusCode durationMs error responseBody }
  }
}`,
    variables: `{"id": 1}`,
  },
  {
    title: "Audit events and their attempts",
    purpose: "Every event, newest first: what was sent, when, and what came back.",
    query: `query AuditTrail($filters: WebhookEventsInputFilters, $first: Int) {
  webhookEvents(filters: $filters, first: $first) {
    edges {
      node {
        id status resource action objectId
        changeId sequence created settled
        receiver { id name }
        attempts {
          number startedAt outcome
          statusCode durationMs error
        }
      }
    }
    pageInfo { totalCount hasNextPage endCursor }
  }
}`,
    variables: `{
  "filters": {"status": {"in": ["DELIVERED", "FAILED"]}},
  "first": 10
}`,
  },
  {
    title: "Send an event again",
    purpose: "With the same id and the same bytes. What failed is found by the query.",
    query: `mutation RetryEvent($id: ID!) {
  retryWebhookEvent(id: $id) {
    webhookEvent { id status attempts { number round outcome statusCode } }
  }
}

query FailedEvents {
  webhookEvents(filters: { status: { eq: FAILED } }, first: 20) {
    edges {
      node { id reason created receiver { name } }
    }
  }
}`,
    variables: `{"id": 1}`,
  },
];

function ledger(resource: string): Example {
  return {
    title: "Search the ledger",
    purpose: "What changed, by whom, before and after; every number with all its digits.",
    query: `query Changes($filters: ChangesInputFilters) {
  changes(filters: $filters, first: 10) {
    edges {
      node {
        changeId resource action objectId
        recordedAt actor { name } correlationId
        changed previous data
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}`,
    variables: `{"filters": {"resource": {"eq": "${resource}"}}}`,
  };
}

function conditional(resource: string, condition: string): readonly Example[] {
  const input = JSON.stringify({ receiverId: 1, resource, action: "UPDATE", condition }, null, 4).replace(/\n/g, "\n  ");
  return [
    {
      title: "Preview a condition",
      purpose: "What it would have made of the latest real changes. Nothing is sent.",
      query: `query PreviewSubscription($input: CreateWebhookSubscriptionInput!) {
  previewWebhookSubscription(input: $input, first: 20) {
    matchedCount failedCount isComplete
    changes { changeId objectId created outcome error body }
  }
}`,
      variables: `{\n  "input": ${input}\n}`,
    },
    {
      title: "Subscribe with a condition",
      purpose: "Events only of changes for which it is true.",
      query: `mutation SubscribeWhen($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) {
    webhookSubscription { id resource action condition activeFromPosition }
    warnings { code field message }
  }
}`,
      variables: `{\n  "input": ${input}\n}`,
    },
  ];
}

const KEEPING: readonly Example[] = [
  {
    title: "Who am I",
    purpose: "The client behind the key, and what it may do.",
    query: `query Viewer {
  viewer {
    client { id name kind role }
    organisation { id name }
    permissions
  }
}`,
    variables: "",
  },
  {
    title: "Rotate a secret",
    purpose: "Without a gap: both sign for an hour. Ask for the etag first.",
    query: `query ReceiverEtag($id: ID!) {
  webhookReceiver(id: $id) { id name _etag previousSecretUntil }
}

mutation RotateSecret($input: RotateWebhookReceiverSecretInput!) {
  rotateWebhookReceiverSecret(input: $input) {
    webhookReceiver { id sharedSecret previousSecretUntil _etag }
  }
}`,
    variables: `{
  "id": 1,
  "input": {"id": 1, "etag": "what ReceiverEtag answers", "overlapSeconds": 3600}
}`,
  },
  {
    title: "Where requests come from",
    purpose: "The addresses for your firewall.",
    query: `query EgressAddresses {
  webhookEgress { environment fixed addresses { cidr from until } }
}`,
    variables: "",
  },
  {
    title: "What can be subscribed to",
    purpose: "All resources, with their descriptions.",
    query: `query Resources {
  resources { name description }
}`,
    variables: "",
  },
];
