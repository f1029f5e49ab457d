# Data bucket -> topic -> subscription that pushes to the function; what fails again and again -> dead letters.

locals {
  # Known before the function is made, so that it can be told for whom its callers' tokens are made out.
  audiences = { for name in keys(var.pipelines) : name => "https://${local.name}-${name}-ask-${local.number}.${var.region}.run.app" }

  settings = {
    for name, one in var.pipelines : name => {
      HEADWORKS_NAME           = name
      HEADWORKS_SPEC           = "gs://${google_storage_bucket.control.name}/specs/${name}.json"
      HEADWORKS_STATE          = "gs://${google_storage_bucket.control.name}/triggers/${name}"
      HEADWORKS_OBJECTS        = join(" ", one.objects)
      HEADWORKS_SETTLE_SECONDS = tostring(one.settle_seconds)
      HEADWORKS_CALLERS        = join(" ", concat([google_service_account.caller.email], var.callers))
      HEADWORKS_AUDIENCE       = local.audiences[name]
      HEADWORKS_ENVIRONMENT    = jsonencode(local.environment)
    }
  }

  # Two for each pipeline, because they may be reached from different places.
  functions = merge([
    for name in keys(var.pipelines) : {
      "${name}-on" = {
        pipeline    = name
        entry_point = "on_event"
        ingress     = "ALLOW_INTERNAL_ONLY"
        description = "Starts runs of ${name} for new data and messages"
      }
      "${name}-ask" = {
        pipeline    = name
        entry_point = "on_request"
        ingress     = "ALLOW_ALL"
        description = "Starts runs of ${name} for web requests"
      }
    }
  ]...)
}

resource "google_pubsub_topic" "events" {
  for_each = var.pipelines

  name                       = "${local.name}-${each.key}"
  message_retention_duration = "604800s"

  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic_iam_member" "bucket_publishes" {
  for_each = var.pipelines

  topic  = google_pubsub_topic.events[each.key].name
  role   = "roles/pubsub.publisher"
  member = data.google_storage_project_service_account.this.member
}

resource "google_storage_notification" "data" {
  for_each = var.pipelines

  bucket             = google_storage_bucket.data.name
  topic              = google_pubsub_topic.events[each.key].id
  payload_format     = "JSON_API_V1"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = each.value.prefix

  depends_on = [google_pubsub_topic_iam_member.bucket_publishes]
}

resource "google_storage_bucket_object" "function" {
  bucket = google_storage_bucket.control.name
  name   = "functions/${filesha256(var.function_archive)}.zip"
  source = var.function_archive
}

resource "google_cloudfunctions2_function" "this" {
  for_each = local.functions

  name        = "${local.name}-${each.key}"
  location    = var.region
  description = each.value.description

  build_config {
    runtime           = "python311"
    entry_point       = each.value.entry_point
    docker_repository = google_artifact_registry_repository.this.id
    service_account   = google_service_account.builder.id
    source {
      storage_source {
        bucket = google_storage_bucket.control.name
        object = google_storage_bucket_object.function.name
      }
    }
  }

  service_config {
    available_memory               = "512Mi"
    timeout_seconds                = 120
    max_instance_count             = 5
    ingress_settings               = each.value.ingress
    all_traffic_on_latest_revision = true
    service_account_email          = google_service_account.trigger.email
    environment_variables          = local.settings[each.value.pipeline]
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.builder,
    google_project_iam_member.builder_logs,
    google_project_iam_member.builder_sources,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "events" {
  for_each = var.pipelines

  name     = google_cloudfunctions2_function.this["${each.key}-on"].name
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.caller.member
}

resource "google_cloud_run_v2_service_iam_member" "requests" {
  for_each = merge({}, [
    for name in keys(var.pipelines) : {
      for account in concat([google_service_account.caller.account_id], var.callers) : "${name} ${account}" => {
        name   = name
        member = account == google_service_account.caller.account_id ? google_service_account.caller.member : "serviceAccount:${account}"
      }
    }
  ]...)

  name     = google_cloudfunctions2_function.this["${each.value.name}-ask"].name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value.member
}

resource "google_pubsub_subscription" "events" {
  for_each = var.pipelines

  name                       = "${local.name}-${each.key}"
  topic                      = google_pubsub_topic.events[each.key].id
  ack_deadline_seconds       = 150
  message_retention_duration = "604800s"

  push_config {
    # The framework reads the topic's name off the path.
    push_endpoint = "${google_cloudfunctions2_function.this["${each.key}-on"].service_config[0].uri}/${google_pubsub_topic.events[each.key].id}"
    oidc_token {
      service_account_email = google_service_account.caller.email
      audience              = google_cloudfunctions2_function.this["${each.key}-on"].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 20
  }

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "dead_letters" {
  name = "${local.name}-dead-letters"

  depends_on = [google_project_service.this]
}

# A topic without a subscription keeps nothing.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "${local.name}-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub's own account moves messages from subscription to dead letters, and signs the tokens of its calls.

resource "google_pubsub_topic_iam_member" "dead_letters" {
  topic  = google_pubsub_topic.dead_letters.name
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_subscription_iam_member" "dead_letters" {
  for_each = var.pipelines

  subscription = google_pubsub_subscription.events[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_service_account_iam_member" "pubsub_as_caller" {
  service_account_id = google_service_account.caller.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Spans whose objects have stopped arriving.
resource "google_cloud_scheduler_job" "settled" {
  for_each = { for name, one in var.pipelines : name => one if one.settle_seconds > 0 }

  name             = "${local.name}-${each.key}-settled"
  region           = var.region
  schedule         = "*/5 * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "120s"

  http_target {
    uri         = "${local.audiences[each.key]}/settled"
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode("{}")
    oidc_token {
      service_account_email = google_service_account.caller.email
      audience              = local.audiences[each.key]
    }
  }

  depends_on = [google_project_service.this, google_cloud_run_v2_service_iam_member.requests]
}
