variable "project" {
  description = "Id of the project; one for each environment."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: want the id of a project, such as my-project-prod."
  }
}

variable "region" {
  description = "Where everything lies and runs. Vertex AI Pipelines has to be there."
  type        = string
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: want a region such as europe-west1, neither a zone nor a multi-region."
  }
}

variable "environment" {
  description = "Name of the environment: the file environments/NAME.yaml of the pipelines."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,11}$", var.environment))
    error_message = "environment: want at most 12 small letters and digits, such as prod."
  }
}

variable "labels" {
  description = "Labels of everything that can have some; costs are told apart by them."
  type        = map(string)
  default     = {}
  validation {
    condition = alltrue([
      for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "labels: want small letters, digits, _ and -, at most 63 of them."
  }
}

variable "kms_key" {
  description = "Key in the same region that encrypts buckets, tables and images; null: Google's keys."
  type        = string
  default     = null
  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key: want projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY."
  }
}

variable "network" {
  description = "projects/NUMBER/global/networks/NAME, peered with Vertex AI; null: none."
  type        = string
  default     = null
  validation {
    condition     = var.network == null || can(regex("^projects/[0-9]+/global/networks/[a-z0-9-]+$", var.network))
    error_message = "network: want projects/NUMBER/global/networks/NAME; the number, not the id."
  }
}

variable "dataflow" {
  description = "Whether Beam's stages run on Dataflow: gives the runner's account what that needs."
  type        = bool
  default     = false
}

variable "pipelines" {
  description = <<-EOT
    Pipelines with a trigger, by name.
      prefix: of the objects of the data bucket that are told of, such as landing/flights/.
      objects: which of them mean data: locations with {SPAN}, as in the configuration.
      settle_seconds: how long nothing more of a span may arrive before its run; 0: the first object starts it.
  EOT
  type = map(object({
    prefix         = string
    objects        = list(string)
    settle_seconds = optional(number, 0)
  }))
  default = {}
  validation {
    condition     = alltrue([for name in keys(var.pipelines) : can(regex("^[a-z][a-z0-9-]{0,19}$", name))])
    error_message = "pipelines: want names of at most 20 small letters, digits and -."
  }
  validation {
    condition = alltrue(flatten([
      for one in values(var.pipelines) : [for place in one.objects : can(regex("^gs://[^/ ]+/[^ ]*[{]SPAN(:[0-9]+)?[}]", place))]
    ]))
    error_message = "pipelines: objects: want gs://BUCKET/... with {SPAN} and without blanks."
  }
  validation {
    condition     = alltrue([for one in values(var.pipelines) : one.settle_seconds >= 0 && floor(one.settle_seconds) == one.settle_seconds])
    error_message = "pipelines: settle_seconds: want a whole number from 0."
  }
}

variable "function_archive" {
  description = "What `python deploy/function/bundle.py` wrote."
  type        = string
  default     = "../../function.zip"
}

variable "callers" {
  description = "Accounts, beside the scheduler's, that may ask for runs over the web."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for one in var.callers : can(regex("^[a-z0-9-]+@[a-z0-9.-]+[.]gserviceaccount[.]com$", one))])
    error_message = "callers: want the addresses of service accounts."
  }
}

variable "github_repository" {
  description = "OWNER/NAME whose workflows on the main branch may publish; null: none."
  type        = string
  default     = null
  validation {
    condition     = var.github_repository == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository: want OWNER/NAME."
  }
}

variable "billing_account" {
  description = "Billing account to watch the costs of; null: no budget."
  type        = string
  default     = null
  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account: want an id such as 012345-6789AB-CDEF01."
  }
}

variable "monthly_budget" {
  description = "In whole units of the billing account's currency. A budget warns; it stops nothing."
  type        = number
  default     = 500
  validation {
    condition     = var.monthly_budget >= 1 && floor(var.monthly_budget) == var.monthly_budget
    error_message = "monthly_budget: want a whole number from 1."
  }
}

variable "alert_email" {
  description = "Who hears of costs; null: the billing account's administrators alone."
  type        = string
  default     = null
}
